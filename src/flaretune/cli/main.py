"""`python -m flaretune`: use what a job has found, look at a run, see the tasks, fetch the demo's assets.

Commands import what they need when they run, so that `tasks` or `--help` need not wait for torch. Only `watch` and
`bench round | wire | memory` need NVFlare.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from measure.cli import add_bench

from flaretune.cli.console import add_manners, parse, printable, progress, run, seconds
from flaretune.cli.tasks import add_tasks
from flaretune.config.model_server import GROUPS as SERVICE_GROUPS
from flaretune.config.model_server import TOKEN_VARIABLE, ServiceConfig
from flaretune.config.options import add_flags, build
from flaretune.config.shared import SiteConfig
from flaretune.errors import UserError

if TYPE_CHECKING:
    from flaretune.methods.classifier import Classifier
    from flaretune.tasks.spec import TaskSpec

PLACE_OPTIONS = ("dtype", "device")  # of SiteConfig: how the model is run here


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. (argparse itself exits, with 2, after a wrong flag.)"""
    args = parse(make_parser(), argv)
    return run(lambda: args.command(args), args.debug)


def make_parser() -> argparse.ArgumentParser:
    """The command line, with the function of each command in `command`."""
    parser = argparse.ArgumentParser(
        prog="flaretune", description="Use and look at what flaretune's jobs have found.", allow_abbrev=False
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, function, help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", allow_abbrev=False)
        command.set_defaults(command=function)
        if function is not None:
            add_manners(command)
        return command

    command = add("predict", predict, "label texts with a prompt or an adapter that a job has found")
    _add_result_flags(command)
    command.add_argument("texts", nargs="*", metavar="TEXT", help="texts, for tasks of one text column")
    command.add_argument(
        "--file", help="CSV, JSONL or Parquet file with the task's text columns, or .txt with one text a line"
    )

    command = add("evaluate", evaluate, "measure a prompt or an adapter on a labelled file")
    _add_result_flags(command)
    command.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="CSV, JSONL or Parquet file with the task's text and label columns",
    )
    command.add_argument("--zero_shot", action="store_true", help="also the model and the template alone")

    command = add("plot", plot, "draw the curve of a run")
    command.add_argument("run", type=Path, metavar="RUN_DIR", help="folder of a finished run, such as runs/demo")
    command.add_argument(
        "--output", type=Path, metavar="PNG", help="the picture (default: curve.png in the run's folder)"
    )

    add_tasks(add("tasks", None, "list the tasks there are, show, check or write one"))

    command = add("watch", watch, "see how far a job of a federation is, round by round")
    command.add_argument("job_id", nargs="?", default="", metavar="JOB_ID", help="(default: the one submitted last)")
    command.add_argument("--startup_kit", required=True, metavar="FOLDER", help="of an administrator")
    command.add_argument(
        "--interval", type=seconds, default=5.0, metavar="X", help="seconds between looks (default: 5)"
    )
    command.add_argument("--once", action="store_true", help="look once")
    command.add_argument("--json", action="store_true", help="print a JSON object a look")

    command = add("serve", serve, "load a model once for all FedBPT clients on this machine, which ask it with --lm")
    add_flags(command, ServiceConfig, groups=SERVICE_GROUPS)

    add_bench(add("bench", None, "measure speed, messages and memory on this machine"))

    command = add("fetch", fetch, "fetch the model and the sentences of demo and tutorial, once")
    command.add_argument("--json", action="store_true", help="print where they are as JSON")
    return parser


def _add_result_flags(parser: argparse.ArgumentParser) -> None:
    result = parser.add_mutually_exclusive_group(required=True)
    result.add_argument("--prompt", metavar="FILE", help="a prompt of FedBPT: a job's best_prompt.safetensors")
    result.add_argument("--adapter", metavar="DIR", help="an adapter of LP-FL: a job's folder best_adapter")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--model_name",
        metavar="NAME",
        help="the model that it was found with: hub id or folder (default: where it was then)",
    )
    add_flags(parser, SiteConfig, only=PLACE_OPTIONS)


def predict(args: argparse.Namespace) -> None:
    """Print label and probabilities of texts, a line each."""
    from flaretune.data.given_texts import given_texts, texts_of_file

    if bool(args.texts) == bool(args.file):
        raise UserError("give either texts or --file FILE: " + ("both are there" if args.file else "neither is there"))
    spec = _task(args)
    # before the model is loaded: what is wrong is said at once
    texts = texts_of_file(spec, args.file) if args.file else given_texts(spec, args.texts)
    classifier = _open(args)
    words = _words(classifier)
    labels = [f"{word} ({value})" for word, value in zip(words, spec.label_values, strict=True)]
    width = max(map(len, labels))
    for columns, row in zip(texts, classifier.probabilities(texts, progress(args.quiet)), strict=True):
        best = int(row.argmax())
        if args.json:
            by_label = {str(label): round(float(p), 6) for label, p in zip(spec.label_values, row, strict=True)}
            answer = {"label": spec.label_values[best], "word": words[best], "probabilities": by_label}
            print(json.dumps({**answer, "text": columns}, ensure_ascii=False))
        else:
            shown = "  ".join(f"{word} {p:.3f}" for word, p in zip(words, row, strict=True))
            print(f"{labels[best]:<{width}}  {shown}  |  {printable(' | '.join(columns.values()))}")


def evaluate(args: argparse.Namespace) -> None:
    """Print the metric of a prompt or an adapter on a labelled file, and what is right of each class."""
    from flaretune.data.load import load_file
    from flaretune.methods.classifier import score
    from flaretune.tasks.metrics.registry import value_text

    spec = _task(args)
    examples = load_file(spec, args.data)
    classifier = _open(args)
    words = _words(classifier)
    what = "prompt" if args.prompt is not None else "adapter"
    bar = progress(args.quiet)
    found = {what: score(spec, classifier.probabilities(examples.texts, bar), examples.labels)}
    if args.zero_shot:
        found["zero_shot"] = score(spec, classifier.zero_shot(examples), examples.labels)
    if args.json:
        labels = {"label_values": spec.label_values, "words": words}
        print(json.dumps({**labels, **{name: asdict(result) for name, result in found.items()}}, ensure_ascii=False))
        return
    print(f"{len(examples)} texts of {args.data}")
    for name, result in found.items():
        by_class = ", ".join(
            f"{word} ({label}) {correct} of {n}"
            for word, label, correct, n in zip(
                words, spec.label_values, result.correct_by_class, result.n_by_class, strict=True
            )
        )
        print(f"{name.replace('_', '-'):<10} {value_text(result.metric, result.value)}   right: {by_class}")


def plot(args: argparse.Namespace) -> None:
    """Draw the curve of a run and say where it is."""
    from flaretune.engine.plot import draw_curve
    from flaretune.engine.results import read_summary

    output = args.output or args.run / "curve.png"
    draw_curve(read_summary(args.run), output)
    print(output)


def watch(args: argparse.Namespace) -> int:
    """Print a running job's rounds until it ends; returns the exit status."""
    from flaretune.flare.watch import watch as watch_job

    return watch_job(args.startup_kit, args.job_id, args.interval, args.json, args.once)


def serve(args: argparse.Namespace) -> None:
    """Run the language-model service until it is told to stop; ends the process."""
    from flaretune.model_server.server import serve as run_service

    config = build(ServiceConfig, vars(args))
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        token = secrets.token_urlsafe(24)
        print(f"clients need this in their environment: {TOKEN_VARIABLE}={token}", flush=True)
    status = run_service(config, token)
    sys.stdout.flush()
    os._exit(status)  # LitServe's HTTP thread would keep the process


def fetch(args: argparse.Namespace) -> None:
    """Fetch the assets of demo and tutorial, and say where they are."""
    from flaretune.data.demo import fetch_all

    silent = args.quiet or args.json  # with --json, pip's bars alone tell on a terminal
    places = {name: str(place) for name, place in asdict(fetch_all(log=(lambda _: None) if silent else print)).items()}
    if args.json:
        print(json.dumps(places))
        return
    for name, place in places.items():
        print(f"{name:<15}  {place}")


def _task(args: argparse.Namespace) -> TaskSpec:
    """Of the prompt or adapter."""
    from flaretune.methods.fedbpt.artifact import load_prompt
    from flaretune.methods.lpfl.artifact import load_adapter

    return (load_prompt(args.prompt) if args.prompt is not None else load_adapter(args.adapter)).spec


def _open(args: argparse.Namespace) -> Classifier:
    from flaretune.methods.classifier import open_adapter, open_prompt

    site = build(SiteConfig, {name: value for name, value in vars(args).items() if name in PLACE_OPTIONS})
    if args.prompt is not None:
        return open_prompt(args.prompt, args.model_name, site.dtype, site.device)
    return open_adapter(args.adapter, args.model_name, site.dtype, site.device)


def _words(classifier: Classifier) -> list[str]:
    """The label words by class, as a person writes them."""
    return list(classifier.spec.wording(classifier.kind).names)


if __name__ == "__main__":
    sys.exit(main())
