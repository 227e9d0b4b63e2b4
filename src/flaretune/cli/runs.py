"""`python -m flaretune plot`, `report` and `watch`: a run that has ended, and a job that is running."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flaretune.cli.console import add_command, check_output, seconds


def add_plot(commands: Any) -> None:
    """Add the command."""
    command = add_command(commands, "plot", plot, "draw the curve of a run")
    command.add_argument("run", type=Path, metavar="RUN_DIR", help="folder of a finished run, such as runs/demo")
    command.add_argument(
        "--output", type=Path, metavar="PNG", help="the picture (default: curve.png in the run's folder)"
    )


def add_report(commands: Any) -> None:
    """Add the command."""
    command = add_command(commands, "report", report, "write the report of a run, one HTML file")
    command.add_argument("run", type=Path, metavar="RUN_DIR", help="folder of a finished run, such as runs/demo")
    command.add_argument(
        "--output", type=Path, metavar="HTML", help="the report (default: report.html in the run's folder)"
    )
    command.add_argument(
        "--evaluation",
        type=Path,
        metavar="FILE",
        help="of `evaluate --output`, for tables of classes and a calibration curve",
    )


def add_watch(commands: Any) -> None:
    """Add the command."""
    command = add_command(commands, "watch", watch, "see how far a job of a federation is, round by round")
    command.add_argument("job_id", nargs="?", default="", metavar="JOB_ID", help="(default: the one submitted last)")
    command.add_argument("--startup_kit", required=True, metavar="FOLDER", help="of an administrator")
    command.add_argument(
        "--interval", type=seconds, default=5.0, metavar="X", help="seconds between looks (default: 5)"
    )
    command.add_argument("--once", action="store_true", help="look once")
    command.add_argument("--json", action="store_true", help="print a JSON object a look")


def plot(args: argparse.Namespace) -> None:
    """Draw the curve of a run and say where it is."""
    from flaretune.engine.plot import draw_curve
    from flaretune.engine.results import read_summary

    check_output(args.output)
    output = args.output or args.run / "curve.png"
    draw_curve(read_summary(args.run), output)
    print(output)


def report(args: argparse.Namespace) -> None:
    """Write the report of a run and say where it is."""
    from flaretune.engine.report import REPORT, read_evaluation, write_report
    from flaretune.engine.results import read_summary

    check_output(args.output)
    output = args.output or args.run / REPORT
    evaluation = read_evaluation(args.evaluation) if args.evaluation else None
    write_report(args.run, read_summary(args.run), output, evaluation)
    print(output)


def watch(args: argparse.Namespace) -> int:
    """Print a running job's rounds until it ends; returns the exit status."""
    from flaretune.flare.watch import watch as watch_job

    return watch_job(args.startup_kit, args.job_id, args.interval, args.json, args.once)
