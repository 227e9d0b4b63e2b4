"""`python -m flaretune evaluate`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flaretune.cli.console import add_command, check_output, progress
from flaretune.cli.saved import add_result_flags, open_result, read_result, words_of


def add_evaluate(commands: Any) -> None:
    """Add the command."""
    command = add_command(commands, "evaluate", evaluate, "measure what a job has found on a labelled file")
    add_result_flags(command)
    command.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="CSV, JSONL or Parquet file with the task's text and label columns",
    )
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="write what --json prints there, for `report --evaluation FILE`"
    )
    command.add_argument("--zero_shot", action="store_true", help="also the model and the template alone")


def evaluate(args: argparse.Namespace) -> None:
    """Print the metric on a labelled file, and the correct predictions per class."""
    from flaretune.data.load import load_file
    from flaretune.engine.summary import write_json
    from flaretune.methods.classifier import score
    from flaretune.tasks.metrics.registry import value_text

    check_output(args.output)
    saved = read_result(args)
    spec = saved.spec
    examples = load_file(spec, args.data)
    classifier = open_result(saved, args)
    words = words_of(classifier)
    plain = classifier.zero_shot(examples) if args.zero_shot else None  # first: there may be none
    probabilities = classifier.probabilities(examples.texts, progress(args.quiet))
    found = {saved.method.kind: score(spec, probabilities, examples.labels)}
    if plain is not None:
        found["zero_shot"] = score(spec, plain, examples.labels)
    about = {"task": spec.name, "result": str(saved.path), "data": args.data}
    about |= {"label_values": spec.label_values, "words": words}
    values = {**about, **{name: asdict(result) for name, result in found.items()}}
    if args.output is not None:
        write_json(values, args.output)
    if args.json:
        print(json.dumps(values, ensure_ascii=False))
        return
    print(f"{len(examples)} texts of {args.data}")
    for name, result in found.items():
        by_class = ", ".join(
            f"{word} ({label}) {correct} of {n}"
            for word, label, correct, n in zip(
                words, spec.label_values, result.correct_by_class, result.n_by_class, strict=True
            )
        )
        measured = value_text(result.metric, result.value, result.standard_error)
        print(f"{name.replace('_', '-'):<10} {measured}   correct: {by_class}")
