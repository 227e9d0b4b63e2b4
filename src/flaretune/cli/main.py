"""`python -m flaretune`: use what a job has found, look at a run, see the tasks, fetch the demo's assets.

Commands import what they need when they run, so that `tasks` or `--help` need not wait for torch. Only `watch` needs
NVFlare.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Sequence

from flaretune.cli.console import add_command, parse, run
from flaretune.cli.results import add_evaluate, add_predict
from flaretune.cli.runs import add_plot, add_report, add_watch
from flaretune.cli.tasks import add_tasks
from flaretune.cli.trial import add_try
from flaretune.config.flags import add_flags
from flaretune.config.groups import GROUPS
from flaretune.config.model_server import ServiceConfig
from flaretune.config.old_names import renew
from flaretune.config.options import build
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
    command = add_command(
        commands,
        "serve",
        serve,
        "load a model once for all FedBPT clients on this machine, which use it with --model_server",
    )
    add_flags(command, ServiceConfig, groups=GROUPS)
    add_command(commands, "options", options, "print every option with its default and its meaning, as Markdown")
    command = add_command(commands, "fetch", fetch, "fetch the model and the sentences of demo and tutorial, once")
    command.add_argument("--json", action="store_true", help="print where they are as JSON")
    return parser


def serve(args: argparse.Namespace) -> None:
    """Run the model server until it is told to stop; ends the process."""
    from flaretune.model_server.connection import TOKEN_VARIABLE, token_of_environment
    from flaretune.model_server.server import serve as run_server

    options, sentences = renew(vars(args), ServiceConfig)
    for sentence in sentences:
        print(f"warning: {sentence}", file=sys.stderr)
    config = build(ServiceConfig, options)
    token = token_of_environment()
    if not token:
        token = secrets.token_urlsafe(24)
        print(f"clients need this in their environment: {TOKEN_VARIABLE}={token}", flush=True)
    status = run_server(config, token)
    sys.stdout.flush()
    os._exit(status)  # LitServe's HTTP thread would keep the process


def options(args: argparse.Namespace) -> None:
    """Print the reference of all options."""
    from flaretune.config.reference import options_markdown
    from flaretune.methods.registry import METHODS

    print(options_markdown([(method.client_config, method.server_config) for method in METHODS.values()]), end="")


def fetch(args: argparse.Namespace) -> None:
    """Fetch the assets of demo and tutorial, and say where they are."""
    from flaretune.data.demo import fetch_all

    silent = args.quiet or args.json  # with --json, pip's bars alone tell on a terminal
    places = {name: str(place) for name, place in fetch_all(log=(lambda _: None) if silent else print).items()}
    if args.json:
        print(json.dumps(places))
        return
    for name, place in places.items():
        print(f"{name:<15}  {place}")
