"""What a job leaves behind: a line a round for people, and summary.json for everything else."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("flaretune", "nvflare", "torch", "transformers", "cma", "numpy")


@dataclass
class RoundRecord:
    """One round: the state after it, and what it took.

    Attributes:
        round: 0 is the initial prompt, before any search.
        accuracy: the metric on test data of the mean after this round; None without test data.
        dev_accuracy: the metric on the development data; None without any.
        dev_loss: mean cross entropy on it.
        fitness: mean over the sites of F_k(m_k); None in round 0.
        sigma: step size that the sites start the next round with.
        seconds: of the whole round; ``overhead_seconds`` is what the slowest site did not spend on its tasks.
        sites: who answered the search.
        bytes_down, bytes_up: mean over the sites of the round's messages, as they travelled; the evaluation that
            closes the job belongs to no round.
        queries, example_forwards: of the search, over all sites.
        site_fitness, site_accuracy: by site.
    """

    round: int
    accuracy: float | None
    dev_accuracy: float | None
    dev_loss: float | None
    fitness: float | None
    sigma: float
    seconds: float
    overhead_seconds: float
    sites: list[str]
    bytes_down: float
    bytes_up: float
    queries: int = 0
    example_forwards: int = 0
    site_fitness: dict[str, float] = field(default_factory=dict)
    site_accuracy: dict[str, float] = field(default_factory=dict)

    def line(self, last_round: int, n_sites: int, is_best: bool) -> str:
        """The progress line of this round."""
        parts = [f"round {self.round:>{len(str(last_round))}}/{last_round}"]
        parts.append(f"accuracy {_percent(self.accuracy)}  dev {_percent(self.dev_accuracy)}{'*' if is_best else ' '}")
        parts.append("fitness    -   " if self.fitness is None else f"fitness {self.fitness:7.4f}")
        parts.append(f"sigma {self.sigma:.3f}")
        parts.append(f"{self.seconds:6.1f} s")
        parts.append(f"{len(self.sites)}/{n_sites} sites: {', '.join(self.sites)}")
        return "  ".join(parts)


def summary(
    rounds: list[RoundRecord], best_round: int, zero_shot: float | None, seconds: float, **more: Any
) -> dict[str, Any]:
    """The contents of summary.json.

    Args:
        rounds: of the job so far, round 0 first.
        best_round: the round whose mean has the best development accuracy; its test accuracy is reported.
        zero_shot: test metric of the model and the template alone.
        seconds: since the job began.
        more: further entries.
    """
    searched = [r for r in rounds if r.round > 0]
    best = next(r for r in rounds if r.round == best_round)
    return {
        "zero_shot_accuracy": zero_shot,
        "test_accuracy": best.accuracy,
        "dev_accuracy": best.dev_accuracy,
        "best_round": best_round,
        "queries": sum(r.queries for r in searched),
        "example_forwards": sum(r.example_forwards for r in searched),
        "bytes_down_per_client_round": _mean([r.bytes_down for r in searched]),
        "bytes_up_per_client_round": _mean([r.bytes_up for r in searched]),
        "overhead_seconds_per_round": _mean([r.overhead_seconds for r in searched], 3),
        "seconds": round(seconds, 1),
        **more,
        "rounds": [asdict(r) for r in rounds],
    }


def write_json(value: Any, path: Path) -> None:
    """Write a JSON file, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)


def versions() -> dict[str, str]:
    """Python, machine and the packages that numbers depend on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # flaretune itself, when a job carries its code
            found[package] = "not installed as a package"
    return found


def closing_report(values: dict[str, Any], summary_file: Path) -> str:
    """What a person reads at the end of a job: the contents of summary.json in a few lines."""
    metric = values["metric"]
    chosen = f"round {values['best_round']}, chosen by development {metric} {_percent(values['dev_accuracy'])}"
    down, up = values["bytes_down_per_client_round"], values["bytes_up_per_client_round"]
    by_round = "  ".join(f"{r['round']}: {_percent(r['accuracy'])}" for r in values["rounds"])
    rows = {
        f"zero-shot {metric}": f"{_percent(values['zero_shot_accuracy'])} (model and template alone)",
        f"test {metric}": f"{_percent(values['test_accuracy'])} ({chosen})",
        f"{metric} by round": by_round,
        "queries": f"{values['queries']:,} candidates, {values['example_forwards']:,} example-forwards",
        "bytes a client and round": f"{down:,.0f} down, {up:,.0f} up",
        "seconds": f"{values['seconds']:,.0f}",
        "prompt": values["artifact"],
        "summary": str(summary_file),
    }
    return "\n".join(f"{name:<25}{text}" for name, text in rows.items())


def _percent(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"


def _mean(values: list[float], digits: int = 1) -> float:
    return round(sum(values) / len(values), digits) if values else 0.0
