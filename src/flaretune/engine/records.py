"""What a job leaves behind: a line a round for people, and summary.json for everything else."""

from __future__ import annotations

import json
import platform
from collections import Counter
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from flaretune.files import atomic_write
from flaretune.privacy.accountant import sentence

PACKAGES = ("flaretune", "nvflare", "torch", "transformers", "peft", "cma", "numpy")


@dataclass
class RoundRecord:
    """One round: what it took, and how good its result is.

    Attributes:
        round: 0 is where the job starts.
        seconds: of the whole round; ``overhead_seconds`` is what the slowest site did not spend on its tasks, None
            where sites do not tell.
        sites: who answered.
        left_out: the sites whose answers did not count, and why not.
        limited: the sites whose answers counted only as far as the bound of --aggregation lets them.
        bytes_down, bytes_up: mean over the sites of the round's messages, as they travelled; the evaluation that
            closes the job belongs to no round.
        queries: candidates asked about, or training steps, over all sites.
        example_forwards: examples sent through the model for them, over all sites.
        memory_mb, server_memory_mb: the most that a site's process, and the server's, has held so far, in MiB.
        accuracy: the metric on test data of what the round ended with; None without test data.
        dev_accuracy: the metric on the development data; None without any.
        dev_loss: mean cross entropy on it.
        site_accuracy: development accuracy by site.
        releases: the most noised answers that a site has given until then; 0 where nothing is noised.
        epsilon: what they have cost (see `privacy.accountant`); None where nothing is noised.
    """

    round: int
    seconds: float
    overhead_seconds: float | None
    sites: list[str]
    bytes_down: float
    bytes_up: float
    queries: int
    example_forwards: int
    memory_mb: float
    server_memory_mb: float = 0.0
    accuracy: float | None = None
    dev_accuracy: float | None = None
    dev_loss: float | None = None
    site_accuracy: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    limited: list[str] = field(default_factory=list)
    releases: int = 0
    epsilon: float | None = None

    def line(self, last_round: int, n_sites: int, is_best: bool) -> str:
        """The progress line of this round."""
        parts = [f"round {self.round:>{len(str(last_round))}}/{last_round}"]
        parts.append(f"accuracy {_percent(self.accuracy)}  dev {_percent(self.dev_accuracy)}{'*' if is_best else ' '}")
        parts += self._details()
        parts += [] if self.epsilon is None else [f"ε {self.epsilon:.3g}"]
        parts.append(f"{self.seconds:6.1f} s")
        parts.append(f"{len(self.sites)}/{n_sites} sites: {', '.join(self.sites)}")
        if self.limited:
            parts.append(f"limited: {', '.join(self.limited)}")
        return "  ".join(parts)

    def _details(self) -> list[str]:
        """What a method adds to the line."""
        return []


@dataclass
class SearchRecord(RoundRecord):
    """A round of FedBPT.

    Attributes:
        fitness: mean over the sites of F_k(m_k); None in round 0.
        sigma: step size that the sites start the next round with.
        site_fitness: by site.
    """

    fitness: float | None = None
    sigma: float = 0.0
    site_fitness: dict[str, float] = field(default_factory=dict)

    def _details(self) -> list[str]:
        return [
            "fitness    -   " if self.fitness is None else f"fitness {self.fitness:7.4f}",
            f"sigma {self.sigma:.3f}",
        ]


@dataclass
class TrainRecord(RoundRecord):
    """A round of LP-FL.

    Attributes:
        train_loss: mean over the examples of the sites' last epochs; None in round 0.
        labelled, soft_labelled: texts that were trained on, over all sites.
        soft_label_agreement: share of the soft-labelled texts whose most probable class is the hidden truth; None
            where there are none, or no truth.
        site_loss: training loss by site.
    """

    train_loss: float | None = None
    labelled: int = 0
    soft_labelled: int = 0
    soft_label_agreement: float | None = None
    site_loss: dict[str, float] = field(default_factory=dict)

    def _details(self) -> list[str]:
        right = "" if self.soft_label_agreement is None else f", {self.soft_label_agreement:.0%} right"
        texts = [f"{self.labelled} labelled + {self.soft_labelled} soft{right}"] if self.epsilon is None else []
        return [
            "loss    -  " if self.train_loss is None else f"loss {self.train_loss:6.4f}",
            *texts,
            f"{self.bytes_down / 1e3:,.0f} kB down, {self.bytes_up / 1e3:,.0f} kB up",
        ]


def scalars(record: RoundRecord) -> dict[str, float]:
    """The numbers of a round by the names that TensorBoard shows; those that are missing are left out."""
    values = {k: v for k, v in asdict(record).items() if isinstance(v, int | float) and k not in ("round", "releases")}
    for name, by_site in (("dev_accuracy", "site_accuracy"), ("fitness", "site_fitness"), ("train_loss", "site_loss")):
        values |= {f"{name}/{site}": value for site, value in getattr(record, by_site, {}).items()}
    return {name: float(value) for name, value in values.items()}


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
    worked = [r for r in rounds if r.round > 0]
    best = next(r for r in rounds if r.round == best_round)
    return {
        "zero_shot_accuracy": zero_shot,
        "test_accuracy": best.accuracy,
        "dev_accuracy": best.dev_accuracy,
        "best_round": best_round,
        "queries": sum(r.queries for r in worked),
        "example_forwards": sum(r.example_forwards for r in worked),
        "bytes_down_per_client_round": _mean([r.bytes_down for r in worked]),
        "bytes_up_per_client_round": _mean([r.bytes_up for r in worked]),
        "overhead_seconds_per_round": _mean([r.overhead_seconds for r in worked if r.overhead_seconds is not None], 3),
        "memory_mb": max(r.memory_mb for r in rounds),
        "seconds": round(seconds, 1),
        **more,
        "rounds": [asdict(r) for r in rounds],
    }


def write_json(value: Any, path: Path) -> None:
    """Write a JSON file, whole or not at all."""
    atomic_write(path, json.dumps(value, indent=2) + "\n")


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
        **(_training_rows(values) if values["method"] == "LP-FL" else _search_rows(values)),
        **_fault_rows(values["rounds"]),
        **({"privacy": sentence(values["privacy"])} if "privacy" in values else {}),
        "bytes a client and round": f"{down:,.0f} down, {up:,.0f} up",
        "seconds": f"{values['seconds']:,.0f}",
        values["artifact_kind"]: values["artifact"],
        "summary": str(summary_file),
    }
    return "\n".join(f"{name:<25}{text}" for name, text in rows.items())


def _search_rows(values: dict[str, Any]) -> dict[str, str]:
    forwards = "" if "privacy" in values else f", {values['example_forwards']:,} example-forwards"
    return {"queries": f"{values['queries']:,} candidates{forwards}"}


def _training_rows(values: dict[str, Any]) -> dict[str, str]:
    agreement = values["soft_label_agreement"]
    right = "" if agreement is None else f", {agreement:.1%} of them as the hidden labels have it"
    texts = f"{values['labelled']} labelled and {values['soft_labelled']} soft-labelled texts in the last round{right}"
    return {
        **({} if "privacy" in values else {"trained on": texts}),
        "trained parameters": f"{values['trained_parameters']:,}",
    }


def _fault_rows(rounds: list[dict[str, Any]]) -> dict[str, str]:
    """The sites whose answers did not count, or not as they were, and in how many rounds; nothing if all did."""
    found = {}
    for name, key in (("left out", "left_out"), ("held to the others", "limited")):
        counts = Counter(site for record in rounds for site in record.get(key, ()))
        if counts:
            found[name] = ", ".join(f"{site} ({n} {'round' if n == 1 else 'rounds'})" for site, n in counts.items())
    return found


def _percent(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"


def _mean(values: list[float], digits: int = 1) -> float:
    return round(sum(values) / len(values), digits) if values else 0.0
