"""`python -m flaretune`: use what a job has found, look at a run, see the tasks, fetch the demo's assets.

Commands import what they need when they run, so that `tasks` or `--help` need not wait for torch. Only `watch` needs
NVFlare.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from flaretune.cli.console import add_command, parse, run
from flaretune.cli.evaluate import add_evaluate
from flaretune.cli.fetch import add_fetch
from flaretune.cli.options import add_options
from flaretune.cli.predict import add_predict
from flaretune.cli.runs import add_plot, add_report, add_watch
from flaretune.cli.serve import add_serve
from flaretune.cli.tasks import add_tasks
from flaretune.cli.trial import add_try
from flaretune.versions import untested


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. (argparse itself exits, with 2, after a wrong flag.)"""
    args = parse(make_parser(), argv)
    if sentence := untested():
        print(f"warning: {sentence}", file=sys.stderr)
    return run(lambda: args.command(args), args.debug)


def make_parser() -> argparse.ArgumentParser:
    """The command line, with the function of each command in `command`."""
    parser = argparse.ArgumentParser(
        prog="flaretune", description="Use and look at what flaretune's jobs have found.", allow_abbrev=False
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_predict(commands)
    add_evaluate(commands)
    add_plot(commands)
    add_report(commands)
    add_tasks(add_command(commands, "tasks", None, "list the tasks there are, show, check or write one"))
    add_try(commands)
    add_watch(commands)
    add_serve(commands)
    add_options(commands)
    add_fetch(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
