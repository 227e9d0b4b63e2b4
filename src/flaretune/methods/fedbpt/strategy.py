"""The server's side of FedBPT: a CMA-ES that recombines what the clients have found (paper, §3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaretune.config.options import build
from flaretune.methods.artifact_parts import told_parts
from flaretune.methods.base import Arrays, FitResult, InitializeResult, Numbers, Resumed, Strategy
from flaretune.methods.fedbpt import distribution as wire
from flaretune.methods.fedbpt.artifact import PromptArtifact, save_prompt
from flaretune.methods.fedbpt.config import FedBPTConfig, norm_limits
from flaretune.methods.fedbpt.history import keep_distribution, keep_results
from flaretune.methods.fedbpt.limited_results import RoundResults, limit_results
from flaretune.methods.fedbpt.objective import FITNESS_RANGE
from flaretune.methods.fedbpt.server_search import ServerSearch
from flaretune.methods.message import read_arrays, read_natural
from flaretune.tasks.evaluation import HUGE

FLOAT32_ERROR = 1e-6  # relative, of a mean as it travels


class FedBPTStrategy(Strategy):
    """Holds the search distribution; see `Strategy`.

    A resumed run replays the clients' results of its earlier rounds, since CMA-ES is deterministic.
    """

    def start(self, results: Mapping[str, InitializeResult], resumed: Resumed | None, folder: Path) -> dict[str, str]:
        self.settings, self._folder = next(iter(results.values())).settings, folder
        self._options = build(FedBPTConfig, self.settings["options"])
        o = self._options
        norm_limit, norm_limit_upper = norm_limits(o.max_norm) or (None, 0.0)
        self._search = ServerSearch(
            dim=o.intrinsic_dim,
            sigma0=o.sigma,
            local_popsize=o.popsize,
            seed=o.seed,
            bound=o.bound,
            norm_limit=norm_limit,
            norm_limit_upper=norm_limit_upper,
            equal_weights=bool(o.dp_noise),  # clients then do not tell their fitness
        )
        # of all rounds: the clients that took part, and what they sent
        self._clients: list[list[str]] = []
        self._results: dict[str, np.ndarray] = {}
        if resumed:
            for round_number, clients in enumerate(resumed.state["clients"], start=1):
                self._update(round_number, clients, *(resumed.arrays[name] for name in _names(round_number)))
        return {}

    def configure(self, round_number: int, step: str) -> tuple[Arrays, Numbers]:
        limit = self._search.norm_limit
        numbers = {} if limit is None else {"norm_limit": float(limit)}
        return wire.pack(self._search.distribution, self.config.covariance), numbers

    def check(self, result: FitResult, step: str) -> FitResult:
        o = self._options
        shapes = {"mean": (o.intrinsic_dim,), "fitness": (1,), "sigma_square_sum": (1,)}
        arrays = {name: values.astype(np.float64) for name, values in read_arrays(result.arrays, shapes).items()}
        fitness, square_sum = (float(arrays[name][0]) for name in ("fitness", "sigma_square_sum"))
        low, high = FITNESS_RANGE[o.loss_type]
        if not low <= fitness <= high:
            raise ValueError(
                f"'fitness' is {fitness:g}, which the loss cannot be: it lies between {low:g} and {high:g}"
            )
        if not 0 < square_sum <= HUGE:
            raise ValueError(f"'sigma_square_sum' is {square_sum:g}, expected a positive number")
        self._check_work(result)
        farthest = float(np.abs(arrays["mean"]).max())
        if 0 < o.bound * (1 + FLOAT32_ERROR) < farthest:
            raise ValueError(f"'mean' has a number of size {farthest:g}, beyond --bound {o.bound:g}")
        return FitResult(arrays, result.numbers, result.counters, result.evaluation)

    def _check_work(self, result: FitResult) -> None:
        """Check that a client has done what its options say: I generations of λ candidates, and their mean."""
        o = self._options
        n_train = read_natural(result.numbers, "n_train")
        most = o.k_shot * len(self.settings["task"]["label_values"])
        if n_train > most:
            raise ValueError(f"'n_train' tells of {n_train} texts, and --k_shot gives a client {most} at the most")
        queries = o.local_iter * o.popsize + 1
        forwards = queries * n_train * (2 if o.perturb else 1)
        for name, expected in (("queries", queries), ("example_forwards", forwards)):
            if (said := getattr(result.counters, name)) != expected:
                raise ValueError(f"{name!r} is {said}, and {expected} follows from the settings")

    def aggregate(self, round_number: int, step: str, results: Mapping[str, FitResult]) -> list[str]:
        means = np.array([r.arrays["mean"] for r in results.values()])  # (M, d)
        fitness, square_sums = (
            np.array([r.arrays[name][0] for r in results.values()]) for name in ("fitness", "sigma_square_sum")
        )
        return self._update(round_number, list(results), means, fitness, square_sums)

    def _update(
        self,
        round_number: int,
        clients: Sequence[str],
        means: np.ndarray,
        fitness: np.ndarray,
        square_sums: np.ndarray,
    ) -> list[str]:
        """Move the search distribution by what M clients have found, and record it as it came.

        Args:
            round_number: of the round.
            clients: their names.
            means: m_k, float64, shape (M, d).
            fitness: F_k(m_k), float64, shape (M,).
            square_sums: S_k, float64, shape (M,).

        Returns:
            The clients that were above a limit.
        """
        self._clients.append(list(clients))
        self._results |= dict(zip(_names(round_number), (means, fitness, square_sums), strict=True))
        keep_results(self._folder, round_number, clients, means, fitness, square_sums)
        found = RoundResults(means, fitness, square_sums)
        found, is_limited = limit_results(self.rule, self._search.distribution.mean, found)
        distribution = self._search.update(found.means, found.fitness, found.sigma_square_sums)
        keep_distribution(self._folder, distribution)
        return [client for client, limited in zip(clients, is_limited, strict=True) if limited]

    def evaluated_arrays(self) -> Arrays:
        return {"mean": self._search.distribution.mean.astype(np.float32)}

    def save(self, path: Path, result: Mapping[str, Any]) -> bool:
        z = self._search.distribution.mean
        save_prompt(PromptArtifact(z, **told_parts(self.settings), result=dict(result)), path)
        return True

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        return self._results, {"clients": self._clients}

    def metrics(self, results: Mapping[str, FitResult], private: bool) -> tuple[Numbers, Mapping[str, Numbers]]:
        by_client = {} if private else {client: float(r.arrays["fitness"][0]) for client, r in results.items()}
        fitness = {"fitness": float(np.mean(list(by_client.values())))} if by_client else {}
        return {**fitness, "sigma": self._search.distribution.sigma}, {"fitness": by_client}


def _names(round_number: int) -> list[str]:
    """What a round's means, fitness and summed squared step sizes are called in a checkpoint."""
    return [f"{round_number:05d}.{name}" for name in ("means", "fitness", "sigma_square_sums")]
