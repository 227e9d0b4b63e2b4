"""What all our command lines have in common."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator

import pytest

from flaretune.cli.jobs import main
from flaretune.cli.main import make_parser

SCRIPTS: dict[str, Callable[[list[str]], int]] = {
    "fedbpt_job": lambda argv: main("fedbpt", argv),
    "lpfl_job": lambda argv: main("lpfl", argv),
    "compare": lambda argv: importlib.import_module("compare").main(argv),
    "poison": lambda argv: importlib.import_module("poison").main(["--method", "lpfl", *argv]),
    "measure": lambda argv: importlib.import_module("measure").main(["evaluate", *argv]),
    "gpu": lambda argv: importlib.import_module("gpu").main(argv),
    "run_local": lambda argv: importlib.import_module("run_local").main(argv),
}


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of all commands that can be called."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for command in action.choices.values():
            yield from commands(command)
    if not any(action.required for action in below):
        yield parser


def flags(parser: argparse.ArgumentParser) -> set[str]:
    return {flag for action in parser._actions for flag in action.option_strings}


def test_every_command_of_flaretune_can_be_quiet_and_debugged():
    found = {parser.prog: flags(parser) for parser in commands(make_parser())}
    assert len(found) == 14
    assert [name for name, there in found.items() if not {"--quiet", "--debug"} <= there] == []
    without_json = {name.removeprefix("flaretune ") for name, there in found.items() if "--json" not in there}
    # a picture, a page, a file that is printed as it is or written, the default's own command, a server
    assert without_json == {"plot", "report", "options", "tasks", "tasks show", "tasks new", "serve"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_can_be_quiet_and_debugged_and_answers_a_wrong_flag_with_status_2(script, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for argv, status in ((["--help"], 0), (["--no-such-flag"], 2)):
        with pytest.raises(SystemExit) as stop:
            SCRIPTS[script](argv)
        assert stop.value.code == status
        out, err = capsys.readouterr()
        if status == 0:
            assert {"--quiet", "--debug"} <= {word for line in out.splitlines() for word in line.split()}
            assert max(map(len, out.splitlines())) <= 80
        else:
            assert "unrecognized arguments: --no-such-flag" in err
