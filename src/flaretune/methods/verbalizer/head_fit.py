"""The server's side of making a head: which words, with which weights, how much shrinkage; a step for each.

The clients' sums are added as if all texts were in one place, after each was held to the others' under the job's rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flaretune.aggregation.base import AggregationRule
from flaretune.aggregation.limits import FACTOR
from flaretune.methods.exchanged import Arrays, FitResult, Numbers
from flaretune.methods.message import MOST, read_arrays
from flaretune.methods.verbalizer.head import LOSSES, SUMS, WORDS, Head, head_arrays, label_word_weights, sent_head
from flaretune.methods.verbalizer.private import LONGEST
from flaretune.methods.verbalizer.ridge import (
    LEAST_VARIANCE,
    TEMPERATURES,
    TOWARD_SCORE,
    Ridge,
    choose_head,
    choose_words,
    solve,
    solve_noised,
)
from flaretune.methods.verbalizer.statistics import (
    GramSums,
    WordStatistics,
    add_gram_sums,
    add_word_statistics,
    read_gram_sums,
    read_word_statistics,
    scaled,
)

NOISED_TEMPERATURE = 0.25  # where no loss is told to choose one by


@dataclass(frozen=True, eq=False)
class HeadSettings:
    """What a head is made of.

    Attributes:
        candidates: token ids that words are chosen from, int64 (V,).
        neutral: their log-probabilities behind texts that say nothing, float32 (T, V), for T templates.
        label_ids: token ids of each class, which are always among the words, and which λ shrinks towards; may be empty.
        n_words: of each template.
        n_classes: C.
        most: texts that a client can have, of a kind.
        leave_one_out: whether there are no validation texts to choose shrinkage by.
        noise: standard deviation of that in each client's sums; 0 for none.
        prompt: whether the words of the first template are asked for behind a searched prompt too, as template T.
    """

    candidates: np.ndarray
    neutral: np.ndarray
    label_ids: Sequence[Sequence[int]]
    n_words: int
    n_classes: int
    most: int
    leave_one_out: bool
    noise: float = 0.0
    prompt: bool = False


class HeadFit:
    """Makes heads of what clients send, step by step.

    Args:
        settings: what of.
        rule: of the job.

    Attributes:
        head: the last one that was made; None before.
        shrinkage: its λ.
        words: arrays ``words``, ``center`` and ``scale`` of the features, once they are chosen.
    """

    def __init__(self, settings: HeadSettings, rule: AggregationRule):
        self._settings, self._rule = settings, rule
        self._ridge: Ridge | None = None
        self.words: dict[str, np.ndarray] = {}
        self.shrinkage: float | None = None
        self.head: Head | None = None

    @property
    def n_templates(self) -> int:
        """T."""
        return len(self._settings.neutral)

    def configure(self, step: str) -> tuple[Arrays, Numbers]:
        """What clients are sent in a step."""
        if step == WORDS:
            return {"candidates": self._settings.candidates}, {}
        if step == SUMS:
            return self.words, {}
        ridge, leave_one_out = self._ridge, self._settings.leave_one_out
        arrays = {**self.words, "weights": ridge.weights, "biases": ridge.biases}
        if leave_one_out:
            solved = {"mean": ridge.center, "basis": ridge.basis}
            arrays |= {**solved, "spectrum": ridge.spectrum, "shrinkages": ridge.shrinkages}
        return arrays, {"leave_one_out": int(leave_one_out), "n_train": ridge.n}

    def check(self, step: str, arrays: Arrays) -> dict[str, np.ndarray]:
        """A client's arrays, once they are known to be such as it can send.

        Raises:
            ValueError: something is missing, too much, of another size, not finite, or cannot be.
        """
        s = self._settings
        if step == WORDS:
            return read_word_statistics(arrays, s.neutral.size, s.n_classes, s.most).arrays()
        if step == SUMS:
            return read_gram_sums(arrays, len(self.words["words"]), s.n_classes, s.most, bool(s.noise)).arrays()
        shapes = {"losses": (len(self._ridge.weights), len(TEMPERATURES)), "n": (1,)}
        read = {name: values.astype(np.float64) for name, values in read_arrays(arrays, shapes).items()}
        if np.any(read["losses"] < 0) or np.any(read["losses"] > MOST) or not 0 <= read["n"][0] <= s.most:
            raise ValueError("array 'losses' or 'n' holds what no texts can have")
        return read

    def aggregate(self, step: str, results: Mapping[str, FitResult]) -> list[str]:
        """End a step; returns the clients that were held to the others."""
        arrays = [result.arrays for result in results.values()]
        if step == WORDS:
            parts = [WordStatistics(**a) for a in arrays]
            parts, far = self._limit(parts, [p.counts.sum() for p in parts], [p.squares.sum() for p in parts])
            self._choose_words(add_word_statistics(parts))
        elif step == SUMS:
            n_features, n_classes = len(self.words["words"]), self._settings.n_classes
            parts = [read_gram_sums(a, n_features, n_classes, np.inf, noised=True) for a in arrays]
            parts, far = self._limit(parts, [p.n for p in parts], [np.trace(p.gram) for p in parts])
            self._solve(add_gram_sums(parts), self._settings.noise * np.sqrt(len(parts)))
        else:
            assert step == LOSSES, step
            sizes, summed = np.array([a["n"][0] for a in arrays]), np.stack([a["losses"] for a in arrays])
            # Losses of honest clients differ by more than a limit between clients would allow: a text counts for twice
            # that of equally probable classes at the most, which no head that can be chosen comes to.
            summed = np.minimum(summed, 2 * np.log(self._settings.n_classes) * sizes[:, None, None])
            factors = self._rule.limit_sizes(sizes, down_to=FACTOR)
            far = factors < 1
            self._choose_head(float(sizes @ factors), (factors[:, None, None] * summed).sum(axis=0))
        return [client for client, is_far in zip(results, far, strict=True) if is_far]

    def state(self) -> dict[str, np.ndarray]:
        """Arrays that `restore` goes on from."""
        arrays = dict(self.words)
        if self.head is not None:
            arrays |= head_arrays(self.head)
            arrays["shrinkage"] = np.array([self.shrinkage])
        return arrays

    def restore(self, arrays: Arrays) -> None:
        """Go on from the arrays that `state` gave, among others."""
        self.words = {name: arrays[name] for name in ("words", "center", "scale") if name in arrays}
        if "head.words" in arrays:
            self.head = sent_head(arrays)
            self.shrinkage = float(arrays["shrinkage"][0])

    # ---- limits ----

    def _limits(self, sizes: Sequence[float], totals: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """What each client's sums are multiplied by under the job's rule, and who was far above the others.

        Args:
            sizes: numbers of texts, (M,).
            totals: what the sums come to, not negative, (M,); the rule looks at them by text.
        """
        sizes, totals = np.asarray(sizes, dtype=np.float64), np.asarray(totals, dtype=np.float64)
        by_size = self._rule.limit_sizes(sizes, down_to=FACTOR)
        by_text = self._rule.limit_sizes(np.maximum(totals, 0) / np.maximum(sizes, 1), down_to=1)
        return by_size * by_text, (by_size < 1) | (by_text < 1)

    def _limit(self, parts: list, sizes: Sequence[float], totals: Sequence[float]) -> tuple[list, np.ndarray]:
        factors, far = self._limits(sizes, totals)
        return [scaled(part, factor) for part, factor in zip(parts, factors, strict=True)], far

    # ---- the three steps ----

    def _choose_words(self, statistics: WordStatistics) -> None:
        s, n_candidates = self._settings, len(self._settings.candidates)
        if s.noise:  # nothing is told of the texts: those that are most probable anyway
            within = np.arange(min(s.n_words, n_candidates))
            chosen = np.concatenate([within + n_candidates * t for t in range(self.n_templates)])
            center, variance = s.neutral.reshape(-1)[chosen].astype(np.float64), np.ones(len(chosen))
        else:
            groups = np.repeat(np.arange(self.n_templates), n_candidates)
            of_label = [token for tokens in s.label_ids for token in tokens]
            always = np.flatnonzero(np.tile(np.isin(s.candidates, of_label), self.n_templates))
            chosen = choose_words(statistics, groups, s.n_words, always.tolist())
            n = statistics.counts.sum()
            center = statistics.sums.sum(axis=0)[chosen] / n
            variance = statistics.squares[chosen] / n - np.square(center)
        words = np.stack([chosen // n_candidates, s.candidates[chosen % n_candidates]], axis=-1)
        self.words = {"words": words, "center": center, "scale": np.sqrt(np.maximum(variance, LEAST_VARIANCE))}
        if s.prompt:  # of the same words behind the first template: only how strongly they are shrunk depends on these
            first = words[:, 0] == 0
            more = {name: values[first].copy() for name, values in self.words.items()}
            more["words"][:, 0] = self.n_templates
            self.words = {name: np.concatenate([values, more[name]]) for name, values in self.words.items()}

    def _solve(self, sums: GramSums, noise: float) -> None:
        """The heads of the grid; `noise` is the standard deviation of that in `sums`."""
        s = self._settings
        toward = label_word_weights(self.words["words"], s.label_ids, s.n_classes)
        if toward is not None:
            toward = toward * self._units()
        if noise:
            spread = 2 * noise * np.sqrt(len(sums.gram))  # the largest eigenvalue of symmetric Gaussian noise, about
            self._ridge = solve_noised(sums, float(spread), None if toward is None else TOWARD_SCORE * toward)
        else:
            self._ridge = solve(sums, toward)

    def _units(self) -> np.ndarray:
        """How many nats a feature of the sums is counted in, float64 (F, 1)."""
        scale = self.words["scale"][:, None]
        return scale * LONGEST * np.sqrt(len(scale)) if self._settings.noise else scale

    def _choose_head(self, n: float, summed: np.ndarray) -> None:
        if n:
            shrinkage, temperature = choose_head(summed, self._settings.n_classes)
            tau = float(TEMPERATURES[temperature])
        else:  # nothing to choose by; with noise, there is one λ alone
            shrinkage, tau = len(self._ridge.weights) // 2, NOISED_TEMPERATURE
        weights = self._ridge.weights[shrinkage] / self._units()
        bias = self._ridge.biases[shrinkage] - self.words["center"] @ weights
        self.shrinkage = float(self._ridge.shrinkages[shrinkage])
        self.head = Head(self.words["words"], weights, bias, tau)
