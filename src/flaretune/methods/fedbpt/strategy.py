"""The server's side of FedBPT: a CMA-ES that recombines what the clients have found (paper, §3.3)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flaretune.config.options import build
from flaretune.files import atomic_write
from flaretune.methods.artifact_parts import told_parts
from flaretune.methods.base import Resumed, Strategy
from flaretune.methods.exchanged import Arrays, FitResult, InitializeResult, Numbers
from flaretune.methods.fedbpt import distribution as wire
from flaretune.methods.fedbpt.artifact import PromptArtifact, save_prompt
from flaretune.methods.fedbpt.cma_es import RoundResults, ServerSearch, limit_results
from flaretune.methods.fedbpt.config import FedBPTConfig, norm_limits
from flaretune.methods.fedbpt.distribution import Distribution
from flaretune.methods.fedbpt.objective import FITNESS_RANGE
from flaretune.methods.message import check_few_shots, read_arrays, read_natural
from flaretune.methods.verbalizer.head import HEAD_STEPS, LOSSES, SUMS, head_arrays
from flaretune.methods.verbalizer.head_fit import HeadFit, start_head_fit
from flaretune.methods.verbalizer.settings import NEUTRAL_TEXTS
from flaretune.tasks.evaluation import HUGE

SEARCH = ""  # the step of a round that is the method's own
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
        self._head: HeadFit | None = None
        if o.verbalizer == "learned":
            self._head = start_head_fit(results, self.rule, o.n_words, prompt=True)
        # of all rounds: the clients that took part, and what they sent
        self._clients: list[list[str]] = []
        self._results: dict[str, np.ndarray] = {}
        if resumed:
            for round_number, clients in enumerate(resumed.state["clients"], start=1):
                found = RoundResults(*(resumed.arrays[name] for name in _names(round_number)))
                self._update(round_number, clients, found)
            if self._head:
                self._head.restore(resumed.arrays, resumed.state)
        return {}

    def steps(self, round_number: int) -> Sequence[str]:
        """A search; with a learned verbalizer, then a head for where it has led to, and one for the start."""
        if not self._head:
            return super().steps(round_number)
        return (SEARCH, SUMS, LOSSES) if round_number else HEAD_STEPS

    def configure(self, round_number: int, step: str) -> tuple[Arrays, Numbers]:
        if step != SEARCH:
            arrays, numbers = self._head.configure(step)
            return {**arrays, "mean": self._mean()}, numbers
        limit = self._search.norm_limit
        numbers = {} if limit is None else {"norm_limit": float(limit)}
        return {**wire.pack(self._search.distribution, self.config.covariance), **self._sent_head()}, numbers

    def check(self, result: FitResult, step: str) -> FitResult:
        if step != SEARCH:
            self._check_head_work(result)
            return replace(result, arrays=self._head.check(step, result.arrays))
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
        return replace(result, arrays=arrays)

    @property
    def _most(self) -> int:
        """Texts that a client can have, of a kind."""
        return self._options.k_shot * len(self.settings["task"]["label_values"])

    def _check_head_work(self, result: FitResult) -> None:
        """Check that a client claims no more than a pass over its and neutral texts for each template and prompt."""
        check_few_shots(self.settings, n_train=read_natural(result.numbers, "n_train"))
        passes = len(self.settings["verbalizer"]["templates"]) + 1
        for name, most in (("queries", 0), ("example_forwards", self._forwards_of(passes))):
            if (said := getattr(result.counters, name)) > most:
                raise ValueError(f"{name!r} is {said}, and {most} is the most that follows from the settings")

    def _forwards_of(self, passes: int) -> int:
        """The most texts that a client has for so many passes over them."""
        return (2 * self._most + len(NEUTRAL_TEXTS)) * passes

    def _check_work(self, result: FitResult) -> None:
        """Check that a client has done what its options say: I generations of λ candidates, and their mean.

        With a learned verbalizer, one that was started anew has asked behind the task's templates again.
        """
        o, n_train = self._options, read_natural(result.numbers, "n_train")
        check_few_shots(self.settings, n_train=n_train)
        queries = o.local_iter * o.popsize + 1
        forwards = queries * n_train * (2 if o.perturb else 1)
        again = self._forwards_of(len(self.settings["verbalizer"]["templates"])) if self._head else 0
        for name, expected, more in (("queries", queries, 0), ("example_forwards", forwards, again)):
            if not expected <= (said := getattr(result.counters, name)) <= expected + more:
                raise ValueError(f"{name!r} is {said}, and {expected} follows from the settings")

    def aggregate(self, round_number: int, step: str, results: Mapping[str, FitResult]) -> list[str]:
        if step != SEARCH:
            return self._head.aggregate(step, results)
        means, fitness, square_sums = (
            np.array([result.arrays[name] for result in results.values()])
            for name in ("mean", "fitness", "sigma_square_sum")
        )
        return self._update(round_number, list(results), RoundResults(means, fitness[:, 0], square_sums[:, 0]))

    def _update(self, round_number: int, clients: Sequence[str], found: RoundResults) -> list[str]:
        """Move the search distribution, and record what moved it as it came; returns the clients above a limit."""
        self._clients.append(list(clients))
        self._results |= dict(zip(_names(round_number), found, strict=True))
        keep_results(self._folder, round_number, clients, found)
        limited, is_limited = limit_results(self.rule, self._search.distribution.mean, found)
        keep_distribution(self._folder, self._search.update(*limited))
        return [client for client, limited in zip(clients, is_limited, strict=True) if limited]

    def evaluated_arrays(self) -> Arrays:
        return {"mean": self._mean(), **self._sent_head()}

    def _mean(self) -> np.ndarray:
        return self._search.distribution.mean.astype(np.float32)

    def _sent_head(self) -> dict[str, np.ndarray]:
        return head_arrays(self._head.head) if self._head else {}

    def save(self, path: Path, result: Mapping[str, Any]) -> bool:
        learned, chosen = None, {}
        if self._head:
            learned, chosen = self._head.saved(self.settings["verbalizer"]["templates"])
        parts = {**told_parts(self.settings), "result": {**result, **chosen}}
        save_prompt(PromptArtifact(point=self._mean(), learned=learned, **parts), path)
        return True

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays, state = self._head.state() if self._head else ({}, {})
        return {**self._results, **arrays}, {"clients": self._clients, **state}

    def metrics(self, results: Mapping[str, FitResult], private: bool) -> tuple[Numbers, Mapping[str, Numbers]]:
        by_client = {} if private else {client: float(r.arrays["fitness"][0]) for client, r in results.items()}
        fitness = {"fitness": float(np.mean(list(by_client.values())))} if by_client else {}
        words = {"words": len(self._head.head.words)} if self._head else {}
        return {**fitness, **words, "sigma": self._search.distribution.sigma}, {"fitness": by_client}


def _names(round_number: int) -> list[str]:
    """What a round's results are called in a checkpoint."""
    return [f"{round_number:05d}.{name}" for name in RoundResults._fields]


def keep_results(folder: Path, round_number: int, clients: Sequence[str], found: RoundResults) -> None:
    """Record what the clients of a round sent: the server's CMA-ES is deterministic, and can be replayed."""
    (folder / "rounds").mkdir(parents=True, exist_ok=True)
    _write_arrays(folder / "rounds" / f"round_{round_number:04d}.npz", clients=np.array(clients), **found._asdict())


def keep_distribution(folder: Path, distribution: Distribution) -> None:
    """Record the search distribution after the last update."""
    _write_arrays(
        folder / "distribution.npz",
        mean=distribution.mean,
        sigma=np.array(distribution.sigma),
        covariance=distribution.covariance_matrix(),
    )


def _write_arrays(file: Path, **arrays: np.ndarray) -> None:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    atomic_write(file, stream.getvalue())
