"""`python -m flaretune predict`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from flaretune.cli.console import add_command, printable, progress
from flaretune.cli.saved import add_result_flags, open_result, read_result, words_of
from flaretune.errors import UserError


def add_predict(commands: Any) -> None:
    """Add the command."""
    command = add_command(commands, "predict", predict, "label texts with what a job has found")
    add_result_flags(command)
    command.add_argument("texts", nargs="*", metavar="TEXT", help="texts, for tasks of one text column")
    command.add_argument(
        "--file", help="CSV, JSONL or Parquet file with the task's text columns, or .txt with one text a line"
    )


def predict(args: argparse.Namespace) -> None:
    """Print label and probabilities of texts, a line each."""
    from flaretune.data.given_texts import given_texts, texts_of_file

    if bool(args.texts) == bool(args.file):
        raise UserError("give either texts or --file FILE: " + ("both are there" if args.file else "neither is there"))
    saved = read_result(args)
    spec = saved.spec
    # before the model is loaded: what is wrong is said at once
    texts = texts_of_file(spec, args.file) if args.file else given_texts(spec, args.texts)
    classifier = open_result(saved, args)
    words = words_of(classifier)
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
