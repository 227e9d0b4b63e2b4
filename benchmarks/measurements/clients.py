"""Rounds of many clients of one model server, of this version and of another one, side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from markdown_table import markdown_table

from flaretune.cli.jobs import read_preset
from flaretune.config.model_server import ServiceConfig
from flaretune.data.load import Examples, load_split
from flaretune.errors import UserError
from flaretune.host import variable
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.registry import find_method
from flaretune.model_server.launch import running_model_server
from flaretune.tasks.spec import load_task
from measurements.machine import circumstances

CLIENT = Path(__file__).with_name("one_client.py")
OURS = Path(__file__).resolve().parents[2]
MODELS = ("tiny", "demo")
TEST_TEXTS = 20  # of all clients: that many, since rounds are measured and not the start of a job


def clients(
    number: int = 10,
    models: Sequence[str] = MODELS,
    against: Path | None = None,
    rounds: int = 3,
    local_iter: int = 2,
) -> dict[str, Any]:
    """Let FedBPT's clients of the preset ``words``, each in a process of its own, search for some rounds.

    A round is of all clients at a time: the evaluation of the start on its validation texts, `local_iter` generations
    of 5 search points, the fitness of where the search ends. NVFlare's server has no part in it.

    Args:
        number: of clients.
        models: ``tiny``, two layers of 64 numbers, where everything but the model's arithmetic takes the time; and
            ``demo``, which has to be fetched.
        against: a checkout of another version, whose clients and model server take turns with these, round by round.
        rounds: of each side.
        local_iter: generations in a round.

    Returns:
        What `measure.py clients --json` prints, by model: for each of ``sides`` the seconds of every round, processor
        seconds of the model server and of all clients, MiB of the largest client and of the model server; and
        ``ratio``, the median over the rounds of the other version's seconds by this one's, with what the results of the
        two differ by.

    Raises:
        UserError: a number is below 1, or the demo's files, or the other version, are not there.
    """
    for name, value in (("clients", number), ("rounds", rounds), ("local_iter", local_iter)):
        if value < 1:
            raise UserError(f"--{name} {value}: must be at least 1")
    if unknown := [name for name in models if name not in MODELS]:
        raise UserError(f"--models {unknown[0]}: use {' or '.join(MODELS)}")
    if against is not None and not (against / "src" / "flaretune").is_dir():
        raise UserError(f"--against {against}: is no checkout of flaretune")
    checkouts = {"ours": OURS, **({"against": against.resolve()} if against else {})}
    commits = {name: _commit(checkout) for name, checkout in checkouts.items()}  # before it may change
    found = {}
    with tempfile.TemporaryDirectory(prefix="flaretune-bench-") as folder:
        data = _few_texts(Path(folder) / "data")
        for model in models:
            options = {**_preset(local_iter), "dataset": str(data)}
            if model == "tiny":
                options["model_name"] = str(_tiny_model(Path(folder) / "tiny", options["model_name"]))
            found[model] = _measure(checkouts, options, number, rounds, Path(folder) / model)
    return {
        "models": found,
        "clients": number,
        "local_iter": local_iter,
        "commits": commits,
        **circumstances(),
    }


class Side:
    """Clients of a version of flaretune, and the model server of the same version that they have."""

    def __init__(self, checkout: Path, options: Mapping[str, Any], number: int, folder: Path, stack: ExitStack):
        service = ServiceConfig(model_name=options["model_name"], device="cpu")
        with variable("PYTHONPATH", str(checkout / "src")):
            url = stack.enter_context(running_model_server(service, folder / "server.log"))
            self._processes = [stack.enter_context(_client()) for _ in range(number)]
        port = url.rsplit(":", 1)[1]
        [first] = [p for p in psutil.Process().children() if port in p.cmdline()]
        self._server = [first, *first.children(recursive=True)]
        names = [f"site-{i + 1}" for i in range(number)]
        for name, process in zip(names, self._processes, strict=True):
            order = {"options": {**options, "model_server": url}, "name": name, "clients": names}
            _order(process, {**order, "folder": str(folder / name)})
        for process in self._processes:
            _read(process)

    def round(self, number: int) -> dict[str, Any]:
        """Its seconds, what they were spent on, and the clients' results."""
        used = self._processor_seconds()
        started = time.monotonic()
        for process in self._processes:
            _order(process, {"round": number})
        results = [_read(process) for process in self._processes]
        seconds = time.monotonic() - started
        spent = [round(after - before, 2) for before, after in zip(used, self._processor_seconds(), strict=True)]
        return {"seconds": seconds, "server": max(spent), "transport": sum(spent) - max(spent), "results": results}

    def server_mb(self) -> float:
        """Memory of the model server's processes; shared pages count once."""
        return sum(p.memory_full_info().pss for p in self._server) / 2**20

    def _processor_seconds(self) -> list[float]:
        return [sum(p.cpu_times()[:2]) for p in self._server]


def _measure(
    checkouts: Mapping[str, Path], options: Mapping[str, Any], number: int, rounds: int, folder: Path
) -> dict[str, Any]:
    with ExitStack() as stack:
        sides = {name: Side(checkout, options, number, folder / name, stack) for name, checkout in checkouts.items()}
        load = os.getloadavg()[0]
        ran = [{name: side.round(i + 1) for name, side in sides.items()} for i in range(rounds)]
        memory = {name: side.server_mb() for name, side in sides.items()}
    told = {}
    for name in sides:
        own = [one[name] for one in ran]
        told[name] = {
            "round_seconds": [round(one["seconds"], 2) for one in own],
            "server_worker_cpu_seconds": [round(one["server"], 2) for one in own],
            "server_transport_cpu_seconds": [round(one["transport"], 2) for one in own],
            "clients_cpu_seconds": [round(sum(r["cpu_seconds"] for r in one["results"]), 2) for one in own],
            "client_mb": round(max(r["mb"] for r in own[-1]["results"]), 1),
            "server_mb": round(memory[name], 1),
        }
    result: dict[str, Any] = {
        "example_forwards_per_round": sum(r["example_forwards"] for r in ran[0]["ours"]["results"]),
        "queries_per_round": number * (options["local_iter"] + 2),
        "load_average_at_start": round(load, 1),
        "sides": told,
    }
    if "against" in sides:
        result |= compared(ran)
    return result


def compared(ran: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many times as fast this version was in each round, and what the clients' results differ by."""
    ratios = [one["against"]["seconds"] / one["ours"]["seconds"] for one in ran]
    pairs = [pair for one in ran for pair in zip(*(one[side]["results"] for side in ("ours", "against")), strict=True)]
    return {
        "ratio": round(median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "searches": len(pairs),
        "searches_that_end_in_the_same_point": sum(a["mean"] == b["mean"] for a, b in pairs),
        "largest_difference_of_first_losses": float(
            max(np.abs(np.subtract(a["first_losses"], b["first_losses"])).max() for a, b in pairs)
        ),
    }


def _preset(local_iter: int) -> dict[str, Any]:
    """Options of a client of the demo's job as published; without `--calibrate`, which is the server's part."""
    preset = read_preset(find_method("fedbpt"), "words")
    own = {name: value for name, value in preset.items() if name in FedBPTConfig.model_fields}
    return {**own, "local_iter": local_iter, "calibrate": "none"}


def _few_texts(folder: Path) -> Path:
    """The demo's data with fewer test texts."""
    spec = load_task("movie_reviews")
    folder.mkdir()
    for split, examples in (("train", load_split(spec, "train")), ("test", _fewer(load_split(spec, "test")))):
        rows = zip(examples.texts, examples.labels.tolist(), strict=True)
        lines = [json.dumps({**texts, spec.label_column: label}) for texts, label in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _fewer(examples: Examples) -> Examples:
    return examples.take(np.arange(min(TEST_TEXTS, len(examples))))


def _tiny_model(folder: Path, tokenizer_of: str) -> Path:
    """A model of random weights with the demo's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of)
    torch.manual_seed(1)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, initializer_range=0.2))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@contextmanager
def _client() -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([sys.executable, str(CLIENT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _order(process: subprocess.Popen, order: Mapping[str, Any]) -> None:
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()


def _read(process: subprocess.Popen) -> dict[str, Any]:
    line = process.stdout.readline()
    if not line:
        raise UserError(f"a client ended with status {process.wait()}; what it said is above")
    return json.loads(line)


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def clients_table(result: Mapping[str, Any]) -> str:
    """What `clients` gave as a table in Markdown."""
    heads = ["model", "version", "a round, s", "processor time: worker, s", "HTTP and queues, s", "clients, s"]
    heads += ["a client, MiB", "model server, MiB"]
    rows = []
    for model, values in result["models"].items():
        for name, side in values["sides"].items():
            kinds = ("round", "server_worker_cpu", "server_transport_cpu", "clients_cpu")
            times = [f"{median(side[f'{kind}_seconds']):.1f}" for kind in kinds]
            rows.append(
                [model, result["commits"][name], *times, f"{side['client_mb']:.0f}", f"{side['server_mb']:,.0f}"]
            )
    ratios = [
        f"{model} {values['ratio']} times as fast ({', '.join(map(str, values['ratios']))})"
        for model, values in result["models"].items()
        if "ratio" in values
    ]
    note = (
        f"{result['clients']} clients, {result['local_iter']} generations a round; medians. {'; '.join([*ratios, ''])}"
        f"{result['machine']}, {result['date']}."
    )
    return markdown_table(heads, rows, "llr", note)
