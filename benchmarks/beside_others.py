"""A round of LP-FL beside NVFlare's FedAvg recipe with a Hugging Face Trainer, and beside flwr's simulation with one.

    python benchmarks/beside_others.py --flwr_python FLWR/bin/python --output benchmarks/beside_others.json

The same work for all: clients with as many texts, the demo's model, adapters of the same layers, rank and scale in
float32, as many training steps of as many texts at the same learning rate, and an evaluation of the round's model on as
many validation texts. No soft labels, which the others lack. The others train as transformers and PEFT do it
(beside/plain.py). flwr needs an environment with its own packages:

    python3 -m venv FLWR && FLWR/bin/pip install "flwr[simulation]==1.42.0"
    echo SITE-PACKAGES-OF-THIS-ENVIRONMENT > FLWR/lib/python3.11/site-packages/base.pth

The runs go one after the other, in turns. Seconds of a round: from its beginning at the first client to that of the
next; the first, in which models warm up, is left out. Memory: the most that a client's process has held at its last
round's beginning, or, of ours, at its end. Bytes: of the adapter, by its numbers; flwr's simulation sends nothing over
a network, and NVFlare does not tell.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from beside import plain
from markdown_table import markdown_table
from measurements.machine import circumstances

from flaretune.cache import in_cache
from flaretune.cli import console as command_line
from flaretune.cli.console import add_manners, check_output, parse
from flaretune.data.load import load_split
from flaretune.engine.results import read_summary
from flaretune.engine.summary import write_json
from flaretune.errors import UserError
from flaretune.models.device import resolve_device, resolve_dtype
from flaretune.tasks.spec import load_task

HERE = Path(__file__).resolve().parent
TASK = "movie_reviews"
SIDES = {"ours": "LP-FL", "nvflare": "NVFlare FedAvg, Trainer", "flwr": "flwr, Trainer"}
ARRAYS = {"q_proj": (640, 1024), "v_proj": (640, 256)}  # inputs and outputs of the demo's model
LAYERS = 18


def write_texts(folder: Path, n_clients: int, per_class: int) -> list[str]:
    """A file for each client, twice `per_class` texts of each class, the classes in turns."""
    pool = load_split(load_task(TASK), "train")
    of_class = [[t for t, label in zip(pool.texts, pool.labels, strict=True) if label == c] for c in (0, 1)]
    files = []
    for client in range(n_clients):
        own = slice(2 * per_class * client, 2 * per_class * (client + 1))
        file = folder / f"client{client}.csv"
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(["sentence", "label"])
            for pair in zip(*(texts[own] for texts in of_class), strict=True):
                writer.writerows([text["sentence"], label] for label, text in enumerate(pair))
        files.append(str(file))
    return files


def run_ours(work: dict[str, Any], folder: Path, per_class: int) -> dict[str, Any]:
    """LP-FL by its job script."""
    tables = [f'[site-{i + 1}]\ndata_path = "{file}"\n' for i, file in enumerate(work["files"])]
    (folder / "clients.toml").write_text("\n".join(tables), encoding="utf-8")
    options = {
        "task_name": TASK,
        "model_name": work["model"],
        "per_client": folder / "clients.toml",
        "n_clients": len(work["files"]),
        "num_rounds": work["rounds"],
        "k_shot": per_class,
        "soft_labels": "off",
        "target_modules": work["target_modules"],
        "lora_rank": work["rank"],
        "lora_alpha": work["alpha"],
        "learning_rate": work["learning_rate"],
        "train_batch_size": work["batch"],
        "local_epochs": 1,
        "local_steps": work["steps"],
        "dtype": work["dtype"],
        "output": folder / "ours",
    }
    script = HERE.parent / "jobs" / "lpfl_job.py"
    _run([sys.executable, str(script), *(f"--{name}={value}" for name, value in options.items())], {}, folder)
    rounds = read_summary(folder / "ours")["rounds"]
    return {
        "round_seconds": [r["seconds"] for r in rounds[2:]],
        "memory_mb": max(r["memory_mb"] for r in rounds),
    }


def run_beside(side: str, python: str, work: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One of the others, by a script of its own."""
    own = folder / side
    own.mkdir()
    environment = {plain.WORK: json.dumps({**work, "folder": str(own)}), "PYTHONPATH": str(HERE)}
    _run([python, "-m", f"beside.{side}_job"], environment, own)
    lines = [json.loads(line) for line in (own / plain.LOG).read_text(encoding="utf-8").splitlines()]
    return {
        "round_seconds": seconds_between(lines, work["rounds"]),
        "memory_mb": max(line["memory_mb"] for line in lines),
    }


def seconds_between(lines: list[dict[str, Any]], n_rounds: int) -> list[float]:
    """How long rounds took but the first and the last, by the times at which the first client began each.

    Raises:
        UserError: not every round has begun.
    """
    begun = [line["time"] for line in lines if line["client"] == 0]
    if len(begun) != n_rounds:
        raise UserError(f"{len(begun)} of {n_rounds} rounds have begun")
    return [later - earlier for earlier, later in pairwise(begun)][1:]


def _run(command: list[str], environment: dict[str, str], folder: Path) -> None:
    log = folder / "log.txt"
    with log.open("wb") as file:
        status = subprocess.run(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=folder,
        ).returncode
    if status:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise UserError(f"{' '.join(command[:3])} ended with status {status}: {' '.join(said[-3:])}")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All sides, in turns."""
    spec = load_task(TASK)
    wording = spec.wording("causal")
    sides: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="flaretune-beside-") as name:
        root = Path(name)
        work = {
            "model": in_cache(args.model_name),
            "files": write_texts(root, args.clients, args.k_shot),
            "template": wording.template.replace("{sentence}", "{text}"),
            "words": list(wording.label_words),
            "rounds": args.rounds + 1,
            "dtype": resolve_dtype("auto", resolve_device("cpu")),
            "target_modules": ",".join(ARRAYS),
            "rank": 8,
            "alpha": 16,
            "learning_rate": 1e-3,
            "batch": 8,
            "steps": args.steps,
        }
        for turn in range(args.turns):
            folder = root / str(turn)
            folder.mkdir()
            for side in SIDES:
                if side == "ours":
                    found = run_ours(work, folder, args.k_shot)
                else:
                    # flwr begins no round after the last, whose seconds so are not known
                    more = {**work, "rounds": work["rounds"] + 1}
                    python = args.flwr_python if side == "flwr" else sys.executable
                    found = run_beside(side, python, more, folder)
                print(side, found, file=sys.stderr, flush=True)
                kept = sides.setdefault(side, {"round_seconds": [], "memory_mb": []})
                kept["round_seconds"] += found["round_seconds"]
                kept["memory_mb"].append(found["memory_mb"])
    adapter = 4 * LAYERS * sum(work["rank"] * sum(shape) for shape in ARRAYS.values())
    asked = {name: work[name] for name in ("dtype", "target_modules", "rank", "batch", "steps", "learning_rate")}
    about = {"clients": args.clients, "texts_of_a_client": 2 * args.k_shot, "adapter_bytes": adapter, **asked}
    return {"work": about, "sides": sides, **circumstances()}


def table(result: dict[str, Any]) -> str:
    """What `measure` gave, in Markdown."""
    ours = median(result["sides"]["ours"]["round_seconds"])
    rows = []
    for side, name in SIDES.items():
        found = result["sides"][side]
        seconds = median(found["round_seconds"])
        rows.append([name, f"{seconds:.1f}", f"{seconds / ours:.2f}", f"{max(found['memory_mb']):.0f}"])
    w = result["work"]
    note = (
        f"{w['clients']} clients with {w['texts_of_a_client']} texts to train on and as many for validation, "
        f"{w['steps']} steps of {w['batch']} texts a round, {w['dtype']}; medians of "
        f"{len(result['sides']['ours']['round_seconds'])} rounds. {result['machine']}, {result['date']}."
    )
    return markdown_table(["", "seconds a round", "to ours", "memory of a client, MiB"], rows, "lrrr", note)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--flwr_python", required=True, metavar="FILE", help="of the environment that flwr is in")
    parser.add_argument("--model_name", default="{cache}/models/gemma-3-270m", help="(the demo's)")
    parser.add_argument("--clients", type=int, default=2, metavar="N", help="(default: 2)")
    parser.add_argument("--k_shot", type=int, default=8, metavar="N", help="texts of a client per class (default: 8)")
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="of a client in a round (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="that count, in a turn (default: 3)")
    parser.add_argument("--turns", type=int, default=2, metavar="N", help="(default: 2)")
    parser.add_argument("--output", type=Path, metavar="FILE", required=True, help="JSON")
    add_manners(parser)
    args = parse(parser, argv)

    def command() -> None:
        check_output(args.output)
        result = measure(args)
        write_json(result, args.output)
        print(table(result))

    return command_line.run(command, args.debug)


if __name__ == "__main__":
    sys.exit(main())
