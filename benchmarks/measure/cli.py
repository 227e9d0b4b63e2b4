"""`python -m flaretune bench`: measure speed, messages and memory on this machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from measure.shapes import SHAPES
from flaretune.cli.console import add_manners, check_output

WHAT = {
    "evaluate": "example-forwards a second of a generation, against the published code's way",
    "round": "where the seconds of a simulated round go",
    "wire": "bytes of a client's messages, by covariance form",
    "memory": "memory and time of many clients, with a model in each and with one for all",
    "load": "what server and NVFlare take for many clients that do little",
}


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Give a parser the measurements as commands, each with its function in `command`."""
    commands = parser.add_subparsers(metavar="WHAT", required=True)

    def checked(measure: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
        def command(args: argparse.Namespace) -> None:
            check_output(args.output)
            measure(args)

        return command

    def add(name: str, function: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=WHAT[name], description=f"Measure {WHAT[name]}.", allow_abbrev=False)
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
        command.add_argument("--output", type=Path, metavar="FILE", help="also write the JSON to this file")
        command.set_defaults(command=checked(function))
        add_manners(command)
        return command

    command = add("evaluate", _evaluate)
    command.add_argument(
        "--shapes", nargs="+", metavar="NAME", help=f"sizes of models, with random weights: {', '.join(SHAPES)}"
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    command.add_argument("--dtype", default="auto", help="of ours: auto, bfloat16 or float32 (default: auto)")
    for name, text in (
        ("n_candidates", "search points in a generation"),
        ("n_examples", "texts of a site"),
        ("batch_size", "texts in a forward pass; 0: what jobs use"),
        ("perturb", "1: also ask with perturbed texts"),
        ("repeats", "measurements, of which the median counts"),
    ):
        command.add_argument(f"--{name}", type=int, default=argparse.SUPPRESS, metavar="N", help=text)
    command.add_argument("--only_ends", action="store_true", help="the published way and ours, no steps in between")
    add("round", _round)
    command = add("wire", _wire)
    command.add_argument("--clients", type=int, default=10, metavar="N", help="sites of the job (default: 10)")
    command = add("memory", _memory)
    command.add_argument(
        "--clients", type=int, nargs="+", default=[1, 4, 10], metavar="N", help="numbers of clients (default: 1 4 10)"
    )
    command = add("load", _load)
    command.add_argument(
        "--clients",
        type=int,
        nargs="+",
        default=[10, 25, 50],
        metavar="N",
        help="numbers of clients (default: 10 25 50)",
    )
    command.add_argument(
        "--dims", type=int, nargs="+", default=[100, 500], metavar="D", help="intrinsic dimensions (default: 100 500)"
    )
    command.add_argument("--rounds", type=int, default=20, metavar="N", help="of each job (default: 20)")


def _evaluate(args: argparse.Namespace) -> None:
    from measure.evaluate import DEFAULT_SHAPES, EvaluateSettings, evaluate, evaluate_table

    known = {item.name for item in fields(EvaluateSettings)}
    given = {name: value for name, value in vars(args).items() if name in known}
    settings = EvaluateSettings(**given, all_steps=not args.only_ends)
    _tell(args, evaluate(args.shapes or DEFAULT_SHAPES, settings, device=args.device), evaluate_table)


def _round(args: argparse.Namespace) -> None:
    from measure.round import round_seconds, round_table

    _tell(args, round_seconds(), round_table)


def _wire(args: argparse.Namespace) -> None:
    from measure.wire import wire, wire_table

    _tell(args, wire(n_sites=args.clients), wire_table)


def _memory(args: argparse.Namespace) -> None:
    from measure.memory import memory, memory_table

    _tell(args, memory(args.clients), memory_table)


def _load(args: argparse.Namespace) -> None:
    from measure.load import load, load_table

    _tell(args, load(args.clients, args.dims, args.rounds), load_table)


def _tell(args: argparse.Namespace, result: dict[str, Any], table: Callable[[Mapping[str, Any]], str]) -> None:
    """Print what was measured, and keep it."""
    if args.output is not None:
        from flaretune.engine.records import write_json

        write_json(result, args.output)
    print(json.dumps(result, indent=2) if args.json else table(result))
