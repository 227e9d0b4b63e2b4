"""`python -m flaretune fetch`: the assets of demo and tutorial."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from flaretune.cli.console import add_command


def add_fetch(commands: Any) -> None:
    """Add the command."""
    command = add_command(commands, "fetch", fetch, "fetch the model and the sentences of demo and tutorial, once")
    command.add_argument("--json", action="store_true", help="print where they are as JSON")


def fetch(args: argparse.Namespace) -> None:
    """Fetch the assets, and say where they are."""
    from flaretune.data.demo import fetch_all

    silent = args.quiet or args.json  # with --json, pip's bars alone tell on a terminal
    places = {name: str(place) for name, place in asdict(fetch_all(log=(lambda _: None) if silent else print)).items()}
    if args.json:
        print(json.dumps(places))
        return
    for name, place in places.items():
        print(f"{name:<15}  {place}")
