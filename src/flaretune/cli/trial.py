"""`python -m flaretune try`: from a data file to a first number, without a task file."""

from __future__ import annotations

import argparse
import json
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flaretune.cli.console import add_command, check_output, printable, progress
from flaretune.config.flags import add_flags
from flaretune.config.options import build
from flaretune.errors import UserError
from flaretune.methods.verbalizer.config import VerbalizerConfig

if TYPE_CHECKING:
    from flaretune.authoring.trial import Trial

OPTIONS = ("dtype", "quantize", "device", "batch_size", "seed")
MAX_TEXTS = 1000
LINE = 100  # characters of a text that are shown


def add_try(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands, "try", try_file, "say how well a model tells the classes of a data file, without a task file"
    )
    command.add_argument("data", metavar="DATA", help="CSV, JSONL or Parquet file, or a folder of train and test data")
    for flag, name, metavar, what in (
        ("--text", "--text_columns", "A,B", "columns that hold text"),
        ("--label", "--label_column", "NAME", "column of the label"),
    ):
        command.add_argument(flag, name, dest=name[2:], metavar=metavar, required=True, help=what)
    command.add_argument(
        "--model_name",
        "--model",
        metavar="NAME",
        default="",
        help="hub id or folder (default: the demo's model, once it has been fetched)",
    )
    command.add_argument(
        "--max_texts", type=int, default=MAX_TEXTS, metavar="N", help="texts that are used (default: %(default)s)"
    )
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="write the task file there, such as TASK.toml, and do not print it"
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    add_flags(command, VerbalizerConfig, only=OPTIONS)


def try_file(args: argparse.Namespace) -> None:
    """Print the metric, the learning curve, the worst errors and the task file."""
    from flaretune.authoring.new import check_new, save_task
    from flaretune.authoring.trial import try_data

    check_output(args.output)
    if args.output is not None:
        check_new(args.output)
    config = build(VerbalizerConfig, {name: value for name, value in vars(args).items() if name in OPTIONS})
    folder = Path.cwd() if args.output is None else args.output.absolute().parent
    model_name = args.model_name or _demo_model()
    found = try_data(
        args.data,
        args.text_columns,
        args.label_column,
        model_name,
        args.max_texts,
        config,
        folder,
        progress(args.quiet),
    )
    if args.output is not None:
        save_task(args.output, found.toml)
    if args.json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    for line in _lines(found):
        print(printable(line))
    if args.output is None:
        print(f"task file to go on with:\n\n{found.toml}", end="")
        return
    check = f"tasks check {shlex.quote(str(args.output))} --model_name {shlex.quote(model_name)}"
    print(printable(str(args.output)))
    print(printable(f"next: python -m flaretune {check}"))


def _demo_model() -> str:
    from flaretune.data.demo.model import fetched_model

    folder = fetched_model()
    if folder is None:
        raise UserError(
            "--model_name is needed, since the demo's model has not been fetched: give a hub id or folder, or run "
            "`python -m flaretune fetch` first"
        )
    return str(folder)


def _lines(found: Trial) -> Iterator[str]:
    from flaretune.authoring.trial import FIRST, FOLDS
    from flaretune.tasks.metrics.registry import find_metric, value_text

    title = find_metric(found.metric).title
    counts = ", ".join(f"{label}: {n}" for label, n in found.n_by_class.items())
    drawn = f", drawn from {found.n_there}" if found.n_there > found.n else ""
    twice = f"; {found.n_twice} rows left out whose text stands in an earlier row" if found.n_twice else ""
    yield f"{found.n} texts ({counts}){drawn}{twice}"
    yield f"model {found.model_name}: {found.example_forwards} example-forwards"
    yield (
        f"{value_text(found.metric, found.value, found.standard_error)} (standard error) by the learned verbalizer, "
        f"{FOLDS}-fold cross-validated; the most frequent label has a share of {found.majority:.4f}"
    )
    if found.curve:
        yield f"labels per class  {title} on held-out texts, mean ± standard deviation over draws of the labels"
    else:
        yield f"no learning curve: a class has fewer than {FIRST} texts outside of a fold"
    for point in found.curve:
        yield (f"{point.labels_per_class:16d}  {point.mean:.4f} ± {point.standard_deviation:.4f}")
    if found.most_wrong:
        yield "most wrong: label, prediction and its probability"
    for wrong in found.most_wrong:
        text = textwrap.shorten(" | ".join(wrong.text.values()), LINE, placeholder=" …")
        yield f"  {wrong.label}, {wrong.prediction} {wrong.probability:.3f}  {text}"
