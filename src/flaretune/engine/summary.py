"""summary.json, and what a person reads of it at the end of a job."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from flaretune.engine.records import RoundRecord, as_text, round_line
from flaretune.errors import UserError
from flaretune.files import atomic_write
from flaretune.methods.registry import find_method
from flaretune.privacy.accountant import sentence
from flaretune.tasks.metrics.base import Estimate

PACKAGES = ("flaretune", "nvflare", "torch", "transformers", "peft", "cma", "numpy")


def summary(
    rounds: Sequence[RoundRecord], best_round: int, zero_shot: Estimate, seconds: float, **more: Any
) -> dict[str, Any]:
    """The contents of summary.json.

    Args:
        rounds: of the job so far, round 0 first.
        best_round: the round whose result is best on validation data; its test accuracy is reported.
        zero_shot: test metric of the model and the template alone.
        seconds: since the job began.
        more: further entries.
    """
    worked = [r for r in rounds if r.round > 0]
    best = next(r for r in rounds if r.round == best_round)
    overheads = [r.overhead_seconds for r in worked if r.overhead_seconds is not None]
    return {
        "zero_shot_accuracy": zero_shot.value,
        "zero_shot_standard_error": zero_shot.standard_error,
        "test_accuracy": best.accuracy,
        "test_standard_error": best.standard_error,
        "validation_accuracy": best.validation_accuracy,
        "validation_standard_error": best.validation_standard_error,
        "best_round": best_round,
        "queries": sum(r.queries for r in rounds),
        "example_forwards": sum(r.example_forwards for r in rounds),
        "bytes_down_per_client_round": _mean([r.bytes_down for r in worked]),
        "bytes_up_per_client_round": _mean([r.bytes_up for r in worked]),
        "overhead_seconds_per_round": _mean(overheads, 3) if overheads else None,
        "memory_mb": max(r.memory_mb for r in rounds),
        "seconds": round(seconds, 1),
        **more,
        "rounds": [asdict(r) for r in rounds],
    }


def write_json(value: Any, path: Path) -> None:
    """Write a JSON file, whole or not at all."""
    atomic_write(path, json.dumps(value, indent=2) + "\n")


def read_object(file: Path, advice: str) -> dict[str, Any]:
    """A JSON object that a run or a command has left.

    Raises:
        UserError: there is none, or a damaged one; ends in `advice`.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}): {advice}") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): {advice}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file} holds no JSON object: {advice}")
    return values


@cache  # reading them takes 20 ms, and every round saves them
def versions() -> dict[str, str]:
    """Python, machine and the packages that numbers depend on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # flaretune itself, when a job carries its code
            found[package] = "not installed as a package"
    return found


def closing_report(values: Mapping[str, Any], summary_file: Path) -> str:
    """What a person reads at the end of a job: the contents of summary.json in a few lines."""
    metric = values["metric_title"]
    zero_shot, test, validation = (estimate_text(values, of) for of in ("zero_shot", "test", "validation"))
    down, up = values["bytes_down_per_client_round"], values["bytes_up_per_client_round"]
    chosen = f"chosen by validation {metric} {validation}"
    if values["validation_accuracy"] is None:
        chosen = "the last, as there is no validation metric"
    by_round = "  ".join(f"{r['round']}: {as_text(r['accuracy'])}" for r in values["rounds"])
    rows = {
        f"zero-shot {metric}": f"{zero_shot} (model and template alone)",
        f"test {metric}": f"{test} (round {values['best_round']}, {chosen})",
        f"{metric} by round": by_round,
        **find_method(values["method"]).report_rows(values),
        **_fault_rows(values["rounds"]),
        **({"privacy": sentence(values["privacy"])} if "privacy" in values else {}),
        "bytes per client, round": f"{down:,.0f} down, {up:,.0f} up",
        "seconds": f"{values['seconds']:,.0f}",
        values["artifact_kind"]: values["artifact"],
        "summary": str(summary_file),
    }
    return "\n".join(f"{name:<25}{text}" for name, text in rows.items())


def estimate_text(values: Mapping[str, Any], of: str) -> str:
    """A metric of summary.json with its standard error, which runs of earlier versions do not tell.

    Args:
        values: contents of summary.json.
        of: "zero_shot", "test" or "validation".
    """
    return as_text(values[f"{of}_accuracy"], values.get(f"{of}_standard_error"))


def round_lines(values: Mapping[str, Any]) -> dict[int, str]:
    """The progress lines of a job, by round, from its summary or from `Progress.tell`."""
    records = [RoundRecord(**record) for record in values["rounds"]]
    last_round = values.get("num_rounds", max((record.round for record in records), default=0))
    about = {"last_round": last_round, "n_clients": len(values["clients"])}
    method = find_method(values["method"])
    return {
        r.round: round_line(r, method, values["metric_title"], **about, is_best=r.round == values["best_round"])
        for r in records
    }


def _fault_rows(rounds: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The clients whose replies did not count, or not as they were, and in how many rounds; nothing if all did."""
    found = {}
    for name in ("excluded", "clipped"):
        counts = Counter(client for record in rounds for client in record.get(name, ()))
        if counts:
            found[name] = ", ".join(f"{client} ({n} {'round' if n == 1 else 'rounds'})" for client, n in counts.items())
    return found


def _mean(values: Sequence[float], digits: int = 1) -> float:
    return round(sum(values) / len(values), digits) if values else 0.0
