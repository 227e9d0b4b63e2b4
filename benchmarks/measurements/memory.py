"""Memory and time of many clients on one machine: a model in each client, against one for all of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from markdown_table import markdown_table

from flaretune.errors import UserError
from measurements.machine import circumstances
from measurements.simulated import JobRun, run_fedbpt

ROUNDS = 3
# how clients come by their answers, and the options that do it; `turns` has fewer threads than clients
WAYS: dict[str, dict[str, Any]] = {"local": {}, "shared": {"share_model": 1}, "turns": {"share_model": 1, "threads": 2}}


def memory(clients: Sequence[int] = (1, 4, 10), options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Run the demo's job for a few rounds with each number of clients, in each way.

    Args:
        clients: numbers of clients.
        options: of the job script, in place of the demo's.

    Returns:
        What `measure.py memory --json` prints: under ``local``, ``shared`` (a model server for all) and ``turns`` (the
        same with two threads, so that a client's process is started anew for every turn), by number of clients (as
        text): ``peak_mb`` of all processes, ``client_mb`` of the largest client, ``setup_seconds``, ``round_seconds``
        (median), ``overhead_seconds`` of a round, ``seconds`` and the test accuracy.

    Raises:
        UserError: a number of clients is below 1, or a job failed.
    """
    if min(clients) < 1:
        raise UserError(f"--clients {min(clients)}: must be at least 1")
    common = {"preset": "words", "num_rounds": ROUNDS, "min_clients": 1, **(options or {})}
    found: dict[str, dict[str, Any]] = {way: {} for way in WAYS}
    for number in clients:
        for way, own in WAYS.items():
            if number > own.get("threads", 0):  # no turns where every client has its thread
                numbers = _numbers(run_fedbpt({**common, "n_clients": number, **own}))
                print(f"{number} clients, {way}: {numbers}", file=sys.stderr, flush=True)  # all of them take an hour
                found[way][str(number)] = numbers
    return {**found, "rounds": ROUNDS, **circumstances()}


def _numbers(run: JobRun) -> dict[str, Any]:
    setup, *rounds = run.summary["rounds"]
    return {
        "peak_mb": run.peak_mb,
        "client_mb": run.summary["memory_mb"],
        "setup_seconds": setup["seconds"],
        "round_seconds": round(median(r["seconds"] for r in rounds), 2),
        "overhead_seconds": round(median(r["overhead_seconds"] for r in rounds), 2),
        "seconds": run.summary["seconds"],
        "test_accuracy": run.summary["test_accuracy"],
    }


def memory_table(result: Mapping[str, Any]) -> str:
    """What `memory` gave as a table in Markdown."""
    names = {"local": "a model in each", "shared": "one for all", "turns": "one for all, two threads"}
    heads = ["clients", "model", "all processes, MiB", "a client, MiB", "set-up, s", "a round, s"]
    rows = []
    for number in result["local"]:
        for way, name in names.items():
            if number in result[way]:
                values = result[way][number]
                sizes = [f"{values[key]:,.0f}" for key in ("peak_mb", "client_mb")]
                times = [f"{values[key]:.1f}" for key in ("setup_seconds", "round_seconds")]
                rows.append([number, name, *sizes, *times])
    note = f"The demo's model and texts, {result['rounds']} rounds. {result['machine']}, {result['date']}."
    return markdown_table(heads, rows, "rlr", note)
