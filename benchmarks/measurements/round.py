"""Where the seconds of a simulated round go."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import numpy as np
from markdown_table import markdown_table

from flaretune.cli.jobs import read_preset
from flaretune.methods.fedbpt.cma_es import local_search
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.fedbpt.distribution import Distribution
from flaretune.methods.registry import find_method
from measurements.machine import circumstances
from measurements.message_sizes import fedbpt_round, serialiser_of_a_job, write_and_read
from measurements.simulated import run_fedbpt

ROUNDS = 4


def round_seconds(options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Run the demo's job for a few rounds, and take its parts by themselves.

    Args:
        options: of the job script, in place of the demo's.

    Returns:
        What `measure.py round --json` prints, in seconds a round, medians: ``total``; ``model``, the slowest client's
        work without CMA-ES; ``cma``, that of a client; ``messages``, writing and reading a client's task and result;
        ``nvflare``, what is left: NVFlare's tasks and the server.

    Raises:
        UserError: the job failed.
    """
    asked = {"num_rounds": ROUNDS, **(options or {})}
    run = run_fedbpt({"preset": "words", **asked})
    rounds = run.summary["rounds"][1:]
    total = median(r["seconds"] for r in rounds)
    overhead = median(r["overhead_seconds"] for r in rounds)
    resolved = {**read_preset(find_method("fedbpt"), "words"), **asked}
    config = FedBPTConfig(
        intrinsic_dim=resolved["intrinsic_dim"],
        local_iter=resolved["local_iter"],
        local_popsize=resolved["local_popsize"],
    )
    cma = _fastest(lambda: _search(config))
    both = fedbpt_round(config.intrinsic_dim, resolved["covariance"], resolved["n_clients"])
    with serialiser_of_a_job():
        messages = _fastest(lambda: write_and_read(both))
    parts = {"model": total - overhead - cma, "cma": cma, "messages": messages, "nvflare": overhead - messages}
    seconds = {name: round(value, 4) for name, value in {"total": total, **parts}.items()}
    return {"seconds": seconds, "clients": resolved["n_clients"], "rounds": ROUNDS, **circumstances()}


def _search(config: FedBPTConfig) -> None:
    """A client's search in a round, of a function that costs nothing."""
    start = Distribution(np.zeros(config.intrinsic_dim), 1.0)
    local_search(
        start,
        lambda points: np.square(points).sum(axis=1),
        generations=config.local_iter,
        popsize=config.popsize,
        seed=1,
    )


def _fastest(function, repeats: int = 5) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def round_table(result: Mapping[str, Any]) -> str:
    """What `round_seconds` gave as a table in Markdown."""
    seconds = result["seconds"]
    names = {
        "model": "the model, at the slowest client",
        "cma": "CMA-ES at a client",
        "messages": "writing and reading messages",
        "nvflare": "NVFlare and the server",
        "total": "a round",
    }
    rows = [[name, f"{seconds[key]:.3f}"] for key, name in names.items()]
    note = f"{result['clients']} clients, median of {result['rounds']} rounds. {result['machine']}, {result['date']}."
    return markdown_table(["part", "seconds"], rows, "lr", note)
