"""Accuracy against what the model was asked: a line for each method, as a table of runs and a figure.

    python benchmarks/questions.py --output benchmarks/questions.json --figure figs/questions.png

Whole jobs in one process, without NVFlare, with the settings of the demos: film reviews, the demo's model, 400 test
texts. The learned verbalizer is one round, so its line goes through jobs with more and more labels; each other line is
one job, round by round. Mean over --seeds. Finished runs are kept in the JSON file and not made again; the figure is of
all that are there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from asked_once import AskedOnce
from in_process import kept, summary_of_preset
from markdown_table import markdown_table, spread
from measurements.machine import circumstances

from flaretune.cli import console as command_line
from flaretune.cli.console import add_manners, check_output, parse
from flaretune.engine.summary import write_json
from flaretune.methods.base import Method
from flaretune.methods.registry import METHODS


@dataclass(frozen=True)
class Line:
    """Jobs that make one line of the figure.

    Attributes:
        method, preset: of its jobs.
        labels: the line's name goes on with these.
        jobs: options that each job has of its own; with several, each is one point, its last round.
    """

    method: str
    preset: str
    labels: str
    jobs: Sequence[Mapping[str, Any]] = field(default_factory=lambda: ({},))


LINES = {
    "learned verbalizer": Line(
        "verbalizer", "demo", "4 to 64 labels per class in all", [{"k_shot": 4 * 2**i} for i in range(5)]
    ),
    "FedBPT, two label words": Line("fedbpt", "words", "64 labels per class in all"),
    "FedBPT, learned verbalizer": Line("fedbpt", "demo", "64 labels per class in all"),
    "LP-FL": Line("lpfl", "demo", "6 labels per class in all, 192 unlabelled"),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES), help="(default: all)", metavar="LINE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="(default: 1 2 3)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="keep the runs in this JSON file")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw it here")
    add_manners(parser)
    args = parse(parser, argv)
    return command_line.run(lambda: run_all(args), args.debug)


def run_all(args: argparse.Namespace) -> int:
    """Make the runs that are not in the file yet, one by one; print the table and draw the figure."""
    check_output(args.output)
    for name in args.lines:
        method = None
        for seed in args.seeds:
            for own in LINES[name].jobs:
                cell = {"line": name, "options": dict(own), "seed": seed}
                if any(cell.items() <= run.items() for run in kept(args.output)):
                    continue
                method = method or (AskedOnce() if LINES[name].method == "verbalizer" else METHODS[LINES[name].method])
                run = {**cell, **job(method, LINES[name].preset, {**own, "seed": seed})}
                write_json({"runs": [*kept(args.output), {**run, **circumstances()}]}, args.output)
                if not args.quiet:
                    print(run, file=sys.stderr)
    print(table(kept(args.output)))
    if args.figure:
        draw(kept(args.output), args.figure)
    return 0


def job(method: Method, preset: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Test accuracy of each round of a job with the example-forwards of all clients up to it, and of the chosen one."""
    summary, found, asked = summary_of_preset(method, preset, own), [], 0
    for one in summary["rounds"]:
        asked += one["example_forwards"]
        found.append({"example_forwards": asked, "accuracy": one["accuracy"]})
    return {"chosen": summary["test_accuracy"], "rounds": found}


def points(runs: Sequence[Mapping[str, Any]], line: str) -> list[tuple[int, list[float]]]:
    """Of a line: example-forwards, the most of the seeds where they differ, and each seed's accuracy there."""
    several, found = len(LINES[line].jobs) > 1, []
    for own in LINES[line].jobs:
        jobs = [run["rounds"] for run in runs if run["line"] == line and run["options"] == own]
        for at in zip(*(job[-1:] if several else job for job in jobs), strict=True):
            found.append((max(one["example_forwards"] for one in at), [one["accuracy"] for one in at]))
    return found


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """A row for each point."""
    rows = [
        [name, LINES[name].labels, f"{asked:,}", spread(accuracies)]
        for name in LINES
        for asked, accuracies in points(runs, name)
    ]
    return markdown_table(["", "labels", "example-forwards", "accuracy"], rows, "llrr", "Mean ± standard deviation.")


def draw(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy against example-forwards, the latter in powers of ten; model and template alone are a dotted line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, marker in zip(LINES, "os^D", strict=True):
        found = points(runs, name)
        shown = [(asked, mean(a), stdev(a) if len(a) > 1 else 0) for asked, a in found if asked]
        if shown:
            x, y, deviation = zip(*shown, strict=True)
            seeds = len({run["seed"] for run in runs if run["line"] == name})
            label = f"{name} ({LINES[name].labels}; {seeds} seed{'s' * (seeds > 1)})"
            axes.errorbar(x, y, deviation, marker=marker, ms=5, capsize=2, label=label)
    if alone := [run["rounds"][0]["accuracy"] for run in runs if LINES[run["line"]].method == "verbalizer"]:
        axes.axhline(mean(alone), color="gray", lw=1, ls=":", label="zero-shot")
    axes.set(xscale="log", xlabel="example-forwards, all clients and rounds", ylabel="test accuracy")
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
