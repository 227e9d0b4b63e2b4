"""The end of all processes that a job has started, without NVFlare; test_stopped_jobs.py has one of its jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flaretune.flare.stopping import MARK, Stopped, ending_what_it_starts, members, stoppable
from tests.commands_for_tests import SRC

# A child that leaves session and parent, and starts another.
LEAVES = (
    "import os, subprocess, sys, time; os.setsid()\n"
    "if os.fork(): os._exit(0)\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True); time.sleep(600)"
)
JOB = f"""
import signal, subprocess, sys, time
from pathlib import Path
from flaretune.flare.stopping import SIGNALS, Stopped, ending_what_it_starts, stoppable

for number in SIGNALS:  # whoever runs the tests may pass over some, as shells do for what is in the background
    signal.signal(number, signal.SIG_DFL)
try:
    with stoppable(), ending_what_it_starts():
        subprocess.run([sys.executable, "-c", {LEAVES!r}])
        Path(sys.argv[1]).write_text("started")
        time.sleep(600)
except Stopped as stop:
    time.sleep(1)  # in which it is told once more
    print(stop)
    sys.exit(stop.status)
"""


def descendants(folder: Path) -> list[psutil.Process]:
    return members("FLARETUNE_TEST", str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_all_that_was_started(tmp_path, number):
    environment = {**os.environ, "FLARETUNE_TEST": str(tmp_path), "PYTHONPATH": str(SRC)}
    command = [sys.executable, "-c", JOB, str(tmp_path / "started")]
    job = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "started").exists() or len(descendants(tmp_path)) < 3:  # itself among them
        assert job.poll() is None
        time.sleep(0.05)
    job.send_signal(number)
    time.sleep(0.3)
    job.send_signal(signal.SIGINT)  # who is impatient does not leave anybody behind
    said, _ = job.communicate(timeout=60)
    assert (job.returncode, said) == (128 + number, f"stopped by {number.name}\n")
    assert descendants(tmp_path) == []


def test_handlers_and_environment_are_as_before():
    before, mark = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)], os.environ.get(MARK)
    with pytest.raises(Stopped, match="stopped by SIGTERM"), stoppable(), ending_what_it_starts():
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    assert os.environ.get(MARK) == mark


def test_a_signal_that_is_passed_over_stays_so():
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_ends_well_kills_nobody():
    with ending_what_it_starts():
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    assert process.poll() is None
    process.kill()
    process.wait()
