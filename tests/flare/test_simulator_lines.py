"""Who reads a simulated job's progress lines may leave."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

TELLING = """
import logging, sys
from flaretune.flare.fixes.simulator import let_readers_leave
log = logging.getLogger("flaretune")
log.addHandler(logging.StreamHandler(sys.stdout))
log.setLevel("INFO")
{fix}
for _ in range(100000):
    log.info("a line of some length")
print("done", file=sys.stderr)
"""


@pytest.mark.parametrize("fixed", [True, False])
def test_a_reader_of_rounds_that_has_seen_enough_is_no_error(fixed):
    code = TELLING.format(fix="let_readers_leave()" if fixed else "").replace("100000", "3000")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        said, status = process.stderr.read(), process.wait()
    if fixed:
        assert (said, status) == (b"done\n", 0)
    else:  # what it is for
        assert said.count(b"BrokenPipeError") > 1000


def test_characters_that_stdout_lacks_are_no_error():
    code = TELLING.format(fix="let_readers_leave()").replace("100000", "1").replace("a line", "\\u03b5 of a line")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("? of a line of some length\n", "done\n")


def test_other_errors_of_a_line_are_told():
    code = TELLING.format(fix="let_readers_leave()").replace("100000", "1")
    code = code.replace('"a line of some length"', '"%d", "no number"')
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "not all arguments converted" in done.stderr or "%d format" in done.stderr
    assert done.stderr.endswith("done\n")
