"""Many clients that do little: what the server and NVFlare take for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from markdown_table import markdown_table

from flaretune.errors import UserError
from measurements.machine import circumstances
from measurements.simulated import JobRun, run_fedbpt

ROUNDS = 20
# Next to nothing for the model to do, one model for all clients, so that a client's process is light.
LIGHT = {"share_model": 1, "local_iter": 1, "local_popsize": 2, "eval_clients": "first", "covariance": "full"}


def load(
    clients: Sequence[int] = (10, 25, 50),
    dims: Sequence[int] = (100, 500),
    rounds: int = ROUNDS,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run jobs of FedBPT with every number of clients and every dimension in the simulator.

    Args:
        clients: numbers of clients.
        dims: intrinsic dimensions d; the covariance travels in full, d (d + 1) / 2 numbers.
        rounds: of each job.
        options: of the job script, in place of the demo's and of what makes clients light.

    Returns:
        What `measure.py load --json` prints: a list ``jobs``, each with ``clients``, ``intrinsic_dim``,
        ``setup_seconds``, ``round_seconds`` and ``overhead_seconds`` (medians), ``bytes_down`` and ``bytes_up`` (of a
        client and round), ``server_mb`` (the most that the server's process had held by the end of round 1, in the
        middle of the job, and at its end, in MiB), and ``lost`` (results that a round went on without).

    Raises:
        UserError: a number is below 1, or a job failed.
    """
    for name, values in (("clients", clients), ("dims", dims), ("rounds", [rounds])):
        if min(values) < 1:
            raise UserError(f"--{name} {min(values)}: must be at least 1")
    jobs = []
    for number in clients:
        # a text a class for every client, and as many to compare prompts on
        common = {"preset": "words", "num_rounds": rounds, "n_clients": number, "min_clients": number, "k_shot": number}
        for dim in dims:
            run = run_fedbpt({**common, **LIGHT, "intrinsic_dim": dim, **(options or {})})
            jobs.append({"clients": number, "intrinsic_dim": dim, **_numbers(run, number)})
    return {"jobs": jobs, "rounds": rounds, **circumstances()}


def _numbers(run: JobRun, n_clients: int) -> dict[str, Any]:
    setup, *rounds = run.summary["rounds"]
    held = [r["server_memory_mb"] for r in rounds]
    return {
        "setup_seconds": setup["seconds"],
        "round_seconds": round(median(r["seconds"] for r in rounds), 2),
        "overhead_seconds": round(median(r["overhead_seconds"] for r in rounds), 2),
        "bytes_down": round(run.summary["bytes_down_per_client_round"]),
        "bytes_up": round(run.summary["bytes_up_per_client_round"]),
        "server_mb": [held[0], held[len(held) // 2], held[-1]],
        "lost": sum(n_clients - len(r["clients"]) for r in run.summary["rounds"]),
    }


def load_table(result: Mapping[str, Any]) -> str:
    """What `load` gave as a table in Markdown."""
    heads = ["clients", "d", "set-up, s", "a round, s", "of it NVFlare and server, s", "bytes down + up of a client"]
    heads += ["server, MiB: round 1, middle, end", "answers lost"]
    rows = []
    for job in result["jobs"]:
        times = [f"{job[key]:.2f}" for key in ("setup_seconds", "round_seconds", "overhead_seconds")]
        held = ", ".join(f"{mb:,.0f}" for mb in job["server_mb"])
        size = f"{job['bytes_down']:,} + {job['bytes_up']:,}"
        rows.append([str(job["clients"]), str(job["intrinsic_dim"]), *times, size, held, str(job["lost"])])
    note = f"{result['rounds']} rounds each. {result['machine']}, {result['date']}."
    return markdown_table(heads, rows, "r", note)
