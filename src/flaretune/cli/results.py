"""`python -m flaretune predict` and `evaluate`: what a job has left, put to use on other texts."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flaretune.cli.console import add_command, check_output, printable, progress
from flaretune.config.client import ClientConfig
from flaretune.config.flags import add_flags
from flaretune.config.options import build
from flaretune.errors import UserError

if TYPE_CHECKING:
    from flaretune.methods.classifier import Classifier
    from flaretune.methods.registry import Saved

PLACE_OPTIONS = ("dtype", "device")  # of ClientConfig: how the model is run here
OLD_FLAGS = ("prompt", "adapter")  # of version 0.1, taken for one release


def add_predict(commands: Any) -> None:
    """Add the command."""
    command = add_command(commands, "predict", predict, "label texts with what a job has found")
    _add_result_flags(command)
    command.add_argument("texts", nargs="*", metavar="TEXT", help="texts, for tasks of one text column")
    command.add_argument(
        "--file", help="CSV, JSONL or Parquet file with the task's text columns, or .txt with one text a line"
    )


def add_evaluate(commands: Any) -> None:
    """Add the command."""
    command = add_command(commands, "evaluate", evaluate, "measure what a job has found on a labelled file")
    _add_result_flags(command)
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


def predict(args: argparse.Namespace) -> None:
    """Print label and probabilities of texts, a line each."""
    from flaretune.data.given_texts import given_texts, texts_of_file

    if bool(args.texts) == bool(args.file):
        raise UserError("give either texts or --file FILE: " + ("both are there" if args.file else "neither is there"))
    saved = _read_result(args)
    spec = saved.spec
    # before the model is loaded: what is wrong is said at once
    texts = texts_of_file(spec, args.file) if args.file else given_texts(spec, args.texts)
    classifier, words = _open(saved, args)
    labels = [f"{word} ({value})" for word, value in zip(words, spec.label_values, strict=True)]
    width = max(map(len, labels))
    for columns, row in zip(texts, classifier.probabilities(texts, progress(args.quiet)), strict=True):
        best = int(row.argmax())
        if args.json:
            by_label = {str(label): round(float(p), 6) for label, p in zip(spec.label_values, row, strict=True)}
            found = {"label": spec.label_values[best], "word": words[best], "probabilities": by_label}
            print(json.dumps({**found, "text": columns}, ensure_ascii=False))
        else:
            shown = "  ".join(f"{word} {p:.3f}" for word, p in zip(words, row, strict=True))
            print(f"{labels[best]:<{width}}  {shown}  |  {printable(' | '.join(columns.values()))}")


def evaluate(args: argparse.Namespace) -> None:
    """Print the metric on a labelled file, and the correct predictions per class."""
    from flaretune.data.load import load_file
    from flaretune.engine.summary import write_json
    from flaretune.methods.classifier import score
    from flaretune.tasks.metrics.registry import value_text

    check_output(args.output)
    saved = _read_result(args)
    spec = saved.spec
    examples = load_file(spec, args.data)
    classifier, words = _open(saved, args)
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


def _add_result_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name a result, its model, and how that is run."""
    result = parser.add_mutually_exclusive_group(required=True)
    result.add_argument(
        "--result",
        metavar="PATH",
        help="what a job has left: best_prompt.safetensors of FedBPT, the folder best_adapter of LP-FL, "
        "best_verbalizer.safetensors",
    )
    for name in OLD_FLAGS:
        result.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--model_name",
        metavar="NAME",
        help="the model that it was found with: hub id or folder (default: where it was then)",
    )
    add_flags(parser, ClientConfig, only=PLACE_OPTIONS)


def _read_result(args: argparse.Namespace) -> Saved:
    """What the flags name, without its model, so that what is wrong with texts can be said at once."""
    from flaretune.methods.registry import load_saved

    for name in OLD_FLAGS:
        if (path := getattr(args, name)) is not None:
            print(f"warning: --{name} is now called --result", file=sys.stderr)
            return load_saved(path)
    return load_saved(args.result)


def _open(saved: Saved, args: argparse.Namespace) -> tuple[Classifier, list[str]]:
    """The same with its model, and the label words by class, as a person writes them."""
    client = build(ClientConfig, {name: value for name, value in vars(args).items() if name in PLACE_OPTIONS})
    classifier = saved.open(args.model_name, client.dtype, client.device)
    return classifier, classifier.spec.class_names(classifier.kind)
