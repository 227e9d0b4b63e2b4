"""What are a task's label words worth to the learned verbalizer, by the number of labelled texts?

    python benchmarks/few_labels.py --output benchmarks/few_labels.json \
        --tasks movie_reviews agnews=../shared/data/ag_news sst2=../shared/data/sst2

Whole jobs in one process, four clients (as many as labels per class where these are fewer), the demo's model, --labels
training and as many validation texts per class in all: with the task's label words, and as with label_words = "auto",
where nothing is known of a class but its texts. A task is a name or a file, with =FOLDER where its data lies elsewhere.
Finished runs are kept in the JSON file; the table is of all that are there.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from asked_once import AskedOnce
from baselines import Place, lay_out
from in_process import client_names, kept, summary_of
from markdown_table import markdown_table, spread
from measurements.machine import circumstances

from flaretune.cache import in_cache
from flaretune.cli import console as command_line
from flaretune.cli.console import add_manners, check_output, parse
from flaretune.engine.summary import write_json
from flaretune.methods.verbalizer.config import VerbalizerConfig, VerbalizerServerConfig


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--tasks", nargs="+", required=True, metavar="TASK[=FOLDER]", help="names or files of tasks")
    parser.add_argument(
        "--labels", type=int, nargs="+", default=[1, 2, 4, 8, 16], metavar="N", help="per class (default: 1 2 4 8 16)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="N", help="(default: 1 to 5)")
    parser.add_argument(
        "--model_name", default="{cache}/models/gemma-3-270m", metavar="MODEL", help="(default: the demo's)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="keep the runs in this JSON file")
    add_manners(parser)
    args = parse(parser, argv)
    return command_line.run(lambda: run_all(args), args.debug)


def run_all(args: argparse.Namespace) -> int:
    """Make the runs that are not in the file yet, and print the table."""
    check_output(args.output)
    runs = kept(args.output)
    with tempfile.TemporaryDirectory(prefix="flaretune-few-labels-") as folder:
        for number, named in enumerate(args.tasks):
            task, _, dataset = named.partition("=")
            place, method = lay_out(task, dataset or None, Path(folder) / str(number)), None
            for labels, seed in itertools.product(args.labels, args.seeds):
                cell = {"task": place.spec.name, "labels": labels, "seed": seed}
                if any(cell.items() <= run.items() for run in runs):
                    continue
                method = method or AskedOnce()
                runs.append({**cell, **accuracies(method, place, args.model_name, labels, seed)})
                write_json({"runs": runs, **circumstances()}, args.output)
                if not args.quiet:
                    print(runs[-1], file=sys.stderr)
    print(table(runs))
    return 0


def accuracies(method: AskedOnce, place: Place, model_name: str, labels: int, seed: int) -> dict[str, float]:
    """Test accuracy of the label words alone, of a head made with them, and of one made without."""
    named = {"task_file" if place.task.endswith(".toml") else "task_name": place.task}
    config = VerbalizerConfig(
        **named,
        model_name=in_cache(model_name),
        dataset=place.folder,
        k_shot=labels,
        seed=seed,
        eval_clients="all",
    )
    clients = client_names(min(4, labels))
    with_words = rounds(method, config, clients)
    opened = method.opened
    method.opened = replace(opened, vocabulary=replace(opened.vocabulary, label_ids=[]))
    without = rounds(method, config, clients)
    method.opened = opened
    return {"zero_shot": with_words[0], "label_words": with_words[-1], "auto": without[-1]}


def rounds(method: AskedOnce, config: VerbalizerConfig, clients: list[str]) -> list[float]:
    """Test accuracy of each round of a job."""
    server = VerbalizerServerConfig(min_clients=len(clients))
    return [one["accuracy"] for one in summary_of(method, config, server, clients)["rounds"]]


def table(runs: list[dict[str, Any]]) -> str:
    """Mean ± standard deviation over the seeds."""
    heads = ["task", "labels per class", "label words alone", "head without them", "head with them"]
    columns, rows = ("zero_shot", "auto", "label_words"), []
    for task, labels in dict.fromkeys((run["task"], run["labels"]) for run in runs):
        found = [run for run in runs if (run["task"], run["labels"]) == (task, labels)]
        rows.append([task, str(labels), *(spread([run[column] for run in found]) for column in columns)])
    return markdown_table(heads, rows, "lr", "Test accuracy, mean ± standard deviation over the seeds.")


if __name__ == "__main__":
    sys.exit(main())
