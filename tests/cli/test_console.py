"""Errors in one sentence, progress on terminals only."""

from __future__ import annotations

import argparse
import errno
import io
import os
import subprocess
import sys

import pytest
import torch

from flaretune.cli.console import printable, progress, run, seconds
from flaretune.errors import UserError


def fail() -> None:
    raise UserError("--k_shot 0: must be at least 1")


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("command", "status"), [(lambda: None, 0), (lambda: 3, 3), (interrupt, 130)])
def test_the_exit_status_is_the_command_s(command, status, capsys):
    assert run(command) == status
    assert capsys.readouterr().err == ""


def test_a_mistake_is_told_in_one_sentence_and_with_debug_also_where_it_arose(capsys):
    assert run(fail) == 1
    assert capsys.readouterr().err == "error: --k_shot 0: must be at least 1\n"
    assert run(fail, debug=True) == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert "in fail" in told
    assert told.endswith("error: --k_shot 0: must be at least 1\n")


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.\nTried to …")])
def test_a_lack_of_memory_is_told_in_one_sentence(error, capsys):
    def fill() -> None:
        raise error

    assert run(fill) == 1
    said = (str(error) or "MemoryError").splitlines()[0]
    told = capsys.readouterr().err
    assert told.startswith(f"error: there is not enough memory ({said}): a smaller --batch_size")
    assert told.count("\n") == 1


def test_a_mistake_s_words_are_no_commands_for_a_terminal(capsys):
    def fail_in_red() -> None:
        raise UserError("no column 'a\x1b[31m'")

    assert run(fail_in_red) == 1
    assert capsys.readouterr().err == "error: no column 'a\\x1b[31m'\n"


def test_a_file_that_cannot_be_used_is_no_traceback_and_what_is_no_mistake_of_the_user_s_is(capsys, tmp_path):
    def write() -> None:
        (tmp_path / "absent" / "file").write_text("")

    def refused() -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    assert run(write) == 1
    place = tmp_path / "absent" / "file"
    assert capsys.readouterr().err == f"error: {place} cannot be read or written (No such file or directory)\n"
    with pytest.raises(ConnectionRefusedError):
        run(refused)


def flaretune(shell: str) -> subprocess.CompletedProcess:
    """Run `python -m flaretune` as a part of a line for the shell, where it is called $F."""
    environment = {**os.environ, "F": f"{sys.executable} -m flaretune"}
    return subprocess.run(["sh", "-c", shell], capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["tasks", "--help", "tasks show sst2"])
def test_nobody_need_read_what_is_printed(command):
    nobody = "import os, subprocess, sys; r, w = os.pipe(); os.close(r); "
    nobody += "sys.exit(subprocess.run(sys.argv[1:], stdout=w).returncode)"
    done = flaretune(f"$F {command} >&-")  # argparse then writes to stderr
    assert (done.returncode, done.stderr.startswith("usage: ") if "--help" in command else done.stderr == "") == (
        0,
        True,
    )
    argv = [sys.executable, "-c", nobody, sys.executable, "-m", "flaretune", *command.split()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a file that is always full is Linux's")
def test_a_full_disk_is_told():
    done = flaretune("$F tasks > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "error: what is printed cannot be read or written (No space left on device)\n"


@pytest.mark.parametrize(("text", "number"), [("0", 0.0), ("2.5", 2.5)])
def test_seconds(text, number):
    assert seconds(text) == number


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon"])
def test_what_is_no_number_of_seconds(text):
    with pytest.raises((ValueError, argparse.ArgumentTypeError), match=r"could not convert|at least 0"):
        seconds(text)


def test_a_reader_that_has_seen_enough_is_no_error():
    lines = "for _ in range(100000): print('a line of some length')"
    code = f"import sys; from flaretune.cli.console import run\ndef c():\n    {lines}\nsys.exit(run(c))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_stdout_prints_replacements_for_characters_that_it_lacks(encoding):
    text = "\u00e9 \u5dee \udcff \u2020"
    code = f"import sys; from flaretune.cli.console import run; sys.exit(run(lambda: print({text!a})))"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding).rstrip() == text.encode(encoding, "replace").decode(encoding)


@pytest.mark.parametrize("argv", [["--help"], ["options"], ["tasks", "show", "sst2"]])
def test_every_command_can_be_read_where_stdout_is_ascii(argv):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "flaretune", *argv], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("ascii")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stderr", "quiet", "drawn"), [(Terminal, False, True), (Terminal, True, False), (io.StringIO, False, False)]
)
def test_a_bar_is_drawn_on_terminals_alone_and_not_if_quiet(stderr, quiet, drawn, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stderr())
    assert list(progress(quiet)([1, 2, 3], "batch")) == [1, 2, 3]
    assert ("batch" in sys.stderr.getvalue()) == drawn


@pytest.mark.parametrize(
    ("text", "shown"), [("naïve café 電影", "naïve café 電影"), ("a\x1b[31mb\n", "a\\x1b[31mb\\n")]
)
def test_a_terminal_is_sent_no_commands(text, shown):
    assert printable(text) == shown
