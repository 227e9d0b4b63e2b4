"""Measure speed, messages and memory on this machine.

    python benchmarks/measure.py evaluate            # a table in about three minutes on two cores; --full: hours
    python benchmarks/measure.py round               # or wire, memory, load; --help says more

With --json or --output FILE the result is JSON. Where flaretune is not installed: PYTHONPATH=src.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from measurements.shapes import SHAPES

from flaretune.cli.console import add_command, check_output, parse, run

WHAT = {
    "evaluate": "example-forwards a second of a generation, against the published code's way",
    "round": "where the seconds of a simulated round go",
    "wire": "bytes of a client's messages, by covariance form",
    "memory": "memory and time of many clients, with a model in each and with one for all",
    "clients": "rounds of many clients of one model server, beside those of another version",
    "calibration": "accuracy without training by the mean that makes the prior of --calibrate batch",
    "load": "what server and NVFlare take for many clients that do little",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="measure.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    add_measurements(parser.add_subparsers(metavar="WHAT", required=True))
    args = parse(parser, argv)

    def measure() -> None:
        check_output(args.output)
        args.command(args)

    return run(measure, args.debug)


def add_measurements(commands: Any) -> None:
    """Add a command for each measurement, its function in `command`."""

    def add(name: str, function: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        command = add_command(commands, name, function, f"measure {WHAT[name]}")
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
        command.add_argument("--output", type=Path, metavar="FILE", help="also write the JSON to this file")
        return command

    command = add("evaluate", _evaluate)
    command.add_argument(
        "--full",
        action="store_true",
        help="larger shapes, more texts and repeats, and bfloat16 against float32 on the demo's model",
    )
    command.add_argument(
        "--shapes", nargs="+", metavar="NAME", help=f"sizes of models, with random weights: {', '.join(SHAPES)}"
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    command.add_argument("--dtype", default="auto", help="of ours: auto, bfloat16 or float32 (default: auto)")
    for name, text in (
        ("n_candidates", "search points in a generation"),
        ("n_examples", "texts of a client"),
        ("batch_size", "texts in a forward pass; 0: what jobs use"),
        ("perturb", "1: also ask with perturbed texts"),
        ("repeats", "measurements, of which the median counts"),
    ):
        command.add_argument(f"--{name}", type=int, default=argparse.SUPPRESS, metavar="N", help=text)
    command.add_argument("--only_ends", action="store_true", help="the published way and ours, no steps in between")
    add("round", _round)
    command = add("wire", _wire)
    command.add_argument("--clients", type=int, default=10, metavar="N", help="clients of the job (default: 10)")
    command = add("memory", _memory)
    command.add_argument(
        "--clients", type=int, nargs="+", default=[1, 4, 10], metavar="N", help="numbers of clients (default: 1 4 10)"
    )
    command = add("clients", _clients)
    command.add_argument("--clients", type=int, default=10, metavar="N", help="number of clients (default: 10)")
    command.add_argument(
        "--models", nargs="+", default=["tiny", "demo"], metavar="MODEL", help="tiny and demo (default: both)"
    )
    command.add_argument("--against", type=Path, metavar="FOLDER", help="a checkout of another version (git worktree)")
    command.add_argument("--rounds", type=int, default=3, metavar="N", help="of each version (default: 3)")
    command.add_argument("--local_iter", type=int, default=2, metavar="N", help="generations in a round (default: 2)")
    command = add("calibration", _calibration)
    command.add_argument(
        "--tasks",
        nargs="+",
        metavar="TASK[=DATASET]",
        help="names or files of tasks, each with another source of its texts if need be (default: the fetched reviews)",
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
    from measurements.evaluate import (
        IN_SHORT,
        SHAPES_IN_SHORT,
        SHAPES_OF_ALL,
        EvaluateSettings,
        evaluate,
        evaluate_table,
    )

    known = {item.name for item in fields(EvaluateSettings)}
    given = {name: value for name, value in vars(args).items() if name in known}
    settings = replace(EvaluateSettings() if args.full else IN_SHORT, **given, all_steps=not args.only_ends)
    shapes = args.shapes or (SHAPES_OF_ALL if args.full else SHAPES_IN_SHORT)
    _tell(args, evaluate(shapes, settings, device=args.device, real_model=args.full), evaluate_table)


def _round(args: argparse.Namespace) -> None:
    from measurements.round import round_seconds, round_table

    _tell(args, round_seconds(), round_table)


def _wire(args: argparse.Namespace) -> None:
    from measurements.wire import wire, wire_table

    _tell(args, wire(n_clients=args.clients), wire_table)


def _memory(args: argparse.Namespace) -> None:
    from measurements.memory import memory, memory_table

    _tell(args, memory(args.clients), memory_table)


def _clients(args: argparse.Namespace) -> None:
    from measurements.clients import clients, clients_table

    found = clients(args.clients, args.models, args.against, args.rounds, args.local_iter)
    _tell(args, found, clients_table)


def _calibration(args: argparse.Namespace) -> None:
    from measurements.calibration import TASKS, calibration, calibration_table

    _tell(args, calibration(args.tasks or TASKS), calibration_table)


def _load(args: argparse.Namespace) -> None:
    from measurements.load import load, load_table

    _tell(args, load(args.clients, args.dims, args.rounds), load_table)


def _tell(args: argparse.Namespace, result: dict[str, Any], table: Callable[[Mapping[str, Any]], str]) -> None:
    """Print what was measured, and keep it."""
    if args.output is not None:
        from flaretune.engine.summary import write_json

        write_json(result, args.output)
    print(json.dumps(result, indent=2) if args.json else table(result))


if __name__ == "__main__":
    sys.exit(main())
