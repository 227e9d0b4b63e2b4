"""Errors in one sentence, progress on terminals only."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from flaretune.command_line import printable, progress, run
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


def test_a_reader_that_has_seen_enough_is_no_error():
    lines = "for _ in range(100000): print('a line of some length')"
    code = f"import sys; from flaretune.command_line import run\ndef c():\n    {lines}\nsys.exit(run(c))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


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
