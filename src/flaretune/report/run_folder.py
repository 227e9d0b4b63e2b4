"""The folder a FedBPT job keeps its results in, on the server; every file whole or as it was before."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flaretune.fedbpt.artifact import PromptArtifact, save_prompt
from flaretune.fedbpt.distribution import Distribution
from flaretune.report.run_record import RoundRecord, summary, versions, write_json

BEST_PROMPT = "best_prompt.safetensors"


class RunFolder:
    """Keeps what a run found: answers, distribution, best prompt, configuration, summary.

    Args:
        folder: made if it is not there.
        settings: what the sites agreed on (`SetupAnswer.settings`).
        server: the server's options.
        sites: names of the sites that take part.
        zero_shot: test metric of the model and the template alone.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        server: Mapping[str, Any],
        sites: Sequence[str],
        zero_shot: float | None,
    ):
        self._folder = folder
        self._settings = settings
        self._sites = list(sites)
        self._zero_shot = zero_shot
        self._started = time.monotonic()
        self._rounds: list[RoundRecord] = []
        self._best: RoundRecord | None = None
        (folder / "rounds").mkdir(parents=True, exist_ok=True)
        config = {"server": dict(server), **settings, "sites": self._sites, "versions": versions()}
        write_json(config, folder / "config.json")

    def keep_answers(
        self, round_number: int, sites: Sequence[str], means: np.ndarray, fitness: np.ndarray, square_sums: np.ndarray
    ) -> None:
        """Keep a round's answers: the server's CMA-ES is deterministic, so replayed they bring back its state."""
        file = self._folder / "rounds" / f"round_{round_number:04d}.npz"
        _write_arrays(file, sites=np.array(sites), means=means, fitness=fitness, sigma_square_sums=square_sums)

    def keep_distribution(self, distribution: Distribution) -> None:
        """Keep the search distribution after the last update."""
        _write_arrays(
            self._folder / "distribution.npz",
            mean=distribution.mean,
            sigma=np.array(distribution.sigma),
            covariance=distribution.covariance_matrix(),
        )

    def keep_round(self, record: RoundRecord, point: np.ndarray) -> bool:
        """Keep a finished round, and its prompt if it is the best so far by development accuracy.

        Args:
            record: of the round.
            point: the mean after it, float, shape (d,).

        Returns:
            Whether it is the best so far.
        """
        self._rounds.append(record)
        is_best = self._best is None or _rank(record) > _rank(self._best)
        if is_best:
            self._best = record
            result = {
                "round": record.round,
                "dev_accuracy": record.dev_accuracy,
                "test_accuracy": record.accuracy,
                "zero_shot_accuracy": self._zero_shot,
                "versions": versions(),
            }
            s = self._settings
            save_prompt(PromptArtifact(point, s["task"], s["options"], s["model"], result), self._folder / BEST_PROMPT)
        values = summary(
            self._rounds,
            self._best.round,
            self._zero_shot,
            self._rounds[0].seconds + time.monotonic() - self._started,
            artifact=BEST_PROMPT,
            task=self._settings["task"]["name"],
            metric=self._settings["task"]["metric"],
            model=self._settings["model"],
            sites=self._sites,
        )
        write_json(values, self._folder / "summary.json")
        return is_best


def scalars(record: RoundRecord) -> dict[str, float]:
    """The numbers of a round by the names that TensorBoard shows; those that are missing are left out."""
    values = {k: v for k, v in asdict(record).items() if isinstance(v, int | float) and k != "round"}
    values |= {f"fitness/{site}": value for site, value in record.site_fitness.items()}
    values |= {f"dev_accuracy/{site}": value for site, value in record.site_accuracy.items()}
    return {name: float(value) for name, value in values.items()}


def _rank(record: RoundRecord) -> tuple[float, float]:
    """Order of prompts: development accuracy, then development loss. Test data has no say."""
    if record.dev_accuracy is None:
        return (0.0, float(record.round))  # nothing to choose by: the latest
    return (record.dev_accuracy, -record.dev_loss)


def _write_arrays(file: Path, **arrays: np.ndarray) -> None:
    partial = file.with_name(f"{file.stem}.partial.npz")
    np.savez(partial, **arrays)
    partial.replace(file)
