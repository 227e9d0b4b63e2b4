"""The server's side of making a head: which words, with which weights, how much shrinkage; a step for each.

The clients' sums are added as if all texts were in one place, after each was held to the others' under the job's rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flaretune.aggregation.base import FACTOR, AggregationRule
from flaretune.methods.exchanged import Arrays, FitResult, InitializeResult, Numbers
from flaretune.methods.message import MOST, read_arrays
from flaretune.methods.verbalizer import ridge
from flaretune.methods.verbalizer.artifact import LearnedHead
from flaretune.methods.verbalizer.head import (
    LOSSES,
    SUMS,
    WORDS,
    Head,
    head_arrays,
    label_word_head,
    label_word_weights,
    sent_head,
)
from flaretune.methods.verbalizer.settings import NEUTRAL
from flaretune.methods.verbalizer.statistics import (
    LONGEST,
    GramSums,
    WordStatistics,
    added,
    read_gram_sums,
    read_word_statistics,
    scaled,
)

NOISED_TEMPERATURE = 0.25  # where no loss is told to choose one by


@dataclass(eq=False)
class HeadFit:
    """Makes heads of what clients send, step by step.

    Attributes:
        rule: of the job.
        candidates: token ids that words are chosen from, int64 (V,).
        neutral: their log-probabilities behind texts that say nothing, float32 (T, V), for T templates.
        label_ids: token ids of each class, which are always among the words, and which λ shrinks towards; may be empty.
        n_words: of each template.
        n_classes: C.
        most: texts that a client can have, of a kind.
        leave_one_out: whether there are no validation texts to choose shrinkage by.
        noise: standard deviation of that in each client's sums; 0 for none.
        prompt: whether the words of the first template are asked for behind a searched prompt too, as template T.
        texts: of words, by token id.
        head: the last one that was made; None before.
        shrinkage: its λ.
        words: arrays ``words``, ``center`` and ``scale`` of the features, once they are chosen.
    """

    rule: AggregationRule
    candidates: np.ndarray
    neutral: np.ndarray
    label_ids: Sequence[Sequence[int]]
    n_words: int
    n_classes: int
    most: int
    leave_one_out: bool
    noise: float = 0.0
    prompt: bool = False
    texts: dict[int, str] = field(default_factory=dict)
    head: Head | None = field(default=None, init=False)
    shrinkage: float | None = field(default=None, init=False)
    words: dict[str, np.ndarray] = field(default_factory=dict, init=False)
    _ridge: ridge.Ridge | None = field(default=None, init=False)

    @property
    def n_templates(self) -> int:
        """T."""
        return len(self.neutral)

    def configure(self, step: str) -> tuple[Arrays, Numbers]:
        """What clients are sent in a step."""
        if step == WORDS:
            return {"candidates": self.candidates}, {}
        if step == SUMS:
            return self.words, {}
        solved, leave_one_out = self._ridge, self.leave_one_out
        arrays = {**self.words, "weights": solved.weights, "biases": solved.biases}
        if leave_one_out:
            center = {"mean": solved.center, "basis": solved.basis}
            arrays |= {**center, "spectrum": solved.spectrum, "shrinkages": solved.shrinkages}
        return arrays, {"leave_one_out": int(leave_one_out), "n_train": solved.n}

    def check(self, step: str, arrays: Arrays) -> dict[str, np.ndarray]:
        """A client's arrays, once they are known to be such as it can send.

        Raises:
            ValueError: something is missing, too much, of another size, not finite, or cannot be.
        """
        if step == WORDS:
            return read_word_statistics(arrays, self.neutral.size, self.n_classes, self.most).arrays()
        if step == SUMS:
            return read_gram_sums(
                arrays, len(self.words["words"]), self.n_classes, self.most, bool(self.noise)
            ).arrays()
        shapes = {"losses": (len(self._ridge.weights), len(ridge.TEMPERATURES)), "n": (1,)}
        read = {name: values.astype(np.float64) for name, values in read_arrays(arrays, shapes).items()}
        if np.any(read["losses"] < 0) or np.any(read["losses"] > MOST) or not 0 <= read["n"][0] <= self.most:
            raise ValueError("array 'losses' or 'n' holds what no texts can have")
        return read

    def aggregate(self, step: str, results: Mapping[str, FitResult]) -> list[str]:
        """End a step; returns the clients that were held to the others."""
        arrays = [result.arrays for result in results.values()]
        if step == WORDS:
            parts = [WordStatistics(**a) for a in arrays]
            parts, far = self._limit(parts, [p.counts.sum() for p in parts], [p.squares.sum() for p in parts])
            self._choose_words(added(parts))
        elif step == SUMS:
            n_features, n_classes = len(self.words["words"]), self.n_classes
            parts = [read_gram_sums(a, n_features, n_classes, np.inf, noised=True) for a in arrays]
            parts, far = self._limit(parts, [p.n for p in parts], [np.trace(p.gram) for p in parts])
            self._solve(added(parts), self.noise * np.sqrt(len(parts)))
        else:
            assert step == LOSSES, step
            sizes, summed = np.array([a["n"][0] for a in arrays]), np.stack([a["losses"] for a in arrays])
            # Losses of honest clients differ by more than a limit between clients would allow: a text counts for twice
            # that of equally probable classes at the most, which no head that can be chosen comes to.
            summed = np.minimum(summed, 2 * np.log(self.n_classes) * sizes[:, None, None])
            factors = self.rule.limit_sizes(sizes, down_to=FACTOR)
            far = factors < 1
            self._choose_head(float(sizes @ factors), (factors[:, None, None] * summed).sum(axis=0))
        return [client for client, is_far in zip(results, far, strict=True) if is_far]

    def saved(self, templates: Sequence[str]) -> tuple[LearnedHead, dict[str, float]]:
        """The head, or before there is one the label words alone, and its λ if it has one, as a result has them."""
        head = self.head or label_word_head(self.label_ids, self.n_classes)
        texts = [self.texts.get(token, "") for token in head.words[:, 1].tolist()]
        return LearnedHead(head, texts, templates), {} if self.shrinkage is None else {"shrinkage": self.shrinkage}

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain JSON values that `restore` goes on from."""
        arrays = dict(self.words)
        if self.head is not None:
            arrays |= head_arrays(self.head)
            arrays["shrinkage"] = np.array([self.shrinkage])
        chosen = self.words["words"][:, 1].tolist() if self.words else []
        return arrays, {"texts": {str(token): self.texts.get(token, "") for token in chosen}}

    def restore(self, arrays: Arrays, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, among others."""
        self.texts |= {int(token): text for token, text in state["texts"].items()}
        self.words = {name: arrays[name] for name in ("words", "center", "scale") if name in arrays}
        if "head.words" in arrays:
            self.head = sent_head(arrays)
            self.shrinkage = float(arrays["shrinkage"][0])

    def _limit(self, parts: list, sizes: Sequence[float], totals: Sequence[float]) -> tuple[list, np.ndarray]:
        """Clients' sums held to each other under the job's rule, and who was far above the others.

        Args:
            parts: sums of M clients.
            sizes: numbers of texts, (M,).
            totals: what the sums come to, not negative, (M,); the rule looks at them by text.
        """
        sizes, totals = np.asarray(sizes, dtype=np.float64), np.asarray(totals, dtype=np.float64)
        by_size = self.rule.limit_sizes(sizes, down_to=FACTOR)
        by_text = self.rule.limit_sizes(np.maximum(totals, 0) / np.maximum(sizes, 1), down_to=1)
        limited = [scaled(part, factor) for part, factor in zip(parts, by_size * by_text, strict=True)]
        return limited, (by_size < 1) | (by_text < 1)

    # ---- the three steps ----

    def _choose_words(self, statistics: WordStatistics) -> None:
        n_candidates = len(self.candidates)
        of_label = [token for tokens in self.label_ids for token in tokens]  # the first of the candidates
        if self.noise:  # nothing is told of the texts: those that are most probable anyway
            within = np.arange(min(max(self.n_words, len(of_label)), n_candidates))
            chosen = np.concatenate([within + n_candidates * t for t in range(self.n_templates)])
            center, variance = self.neutral.reshape(-1)[chosen].astype(np.float64), np.ones(len(chosen))
        else:
            groups = np.repeat(np.arange(self.n_templates), n_candidates)
            always = np.flatnonzero(np.tile(np.isin(self.candidates, of_label), self.n_templates))
            chosen = ridge.choose_words(statistics, groups, self.n_words, always.tolist())
            n = statistics.counts.sum()
            center = statistics.sums.sum(axis=0)[chosen] / n
            variance = statistics.squares[chosen] / n - np.square(center)
        words = np.stack([chosen // n_candidates, self.candidates[chosen % n_candidates]], axis=-1)
        self.words = {"words": words, "center": center, "scale": np.sqrt(np.maximum(variance, ridge.LEAST_VARIANCE))}
        if (
            self.prompt
        ):  # of the same words behind the first template: only how strongly they are shrunk depends on these
            first = words[:, 0] == 0
            more = {name: values[first].copy() for name, values in self.words.items()}
            more["words"][:, 0] = self.n_templates
            self.words = {name: np.concatenate([values, more[name]]) for name, values in self.words.items()}

    def _solve(self, sums: GramSums, noise: float) -> None:
        """The heads of the grid; `noise` is the standard deviation of that in `sums`."""
        toward = label_word_weights(self.words["words"], self.label_ids, self.n_classes)
        if toward is not None:
            toward = toward * self._units()
        if noise:
            spread = 2 * noise * np.sqrt(len(sums.gram))  # the largest eigenvalue of symmetric Gaussian noise, about
            score = None if toward is None else ridge.TOWARD_SCORE * toward
            self._ridge = ridge.solve_noised(sums, float(spread), score)
        else:
            self._ridge = ridge.solve(sums, toward)

    def _units(self) -> np.ndarray:
        """How many nats a feature of the sums is counted in, float64 (F, 1)."""
        scale = self.words["scale"][:, None]
        return scale * LONGEST * np.sqrt(len(scale)) if self.noise else scale

    def _choose_head(self, n: float, summed: np.ndarray) -> None:
        if n:
            shrinkage, temperature = ridge.choose_head(summed, self.n_classes)
            tau = float(ridge.TEMPERATURES[temperature])
        else:  # nothing to choose by; with noise, there is one λ alone
            shrinkage, tau = len(self._ridge.weights) // 2, NOISED_TEMPERATURE
        weights = self._ridge.weights[shrinkage] / self._units()
        bias = self._ridge.biases[shrinkage] - self.words["center"] @ weights
        self.shrinkage = float(self._ridge.shrinkages[shrinkage])
        self.head = Head(self.words["words"], weights, bias, tau)


def start_head_fit(
    results: Mapping[str, InitializeResult],
    rule: AggregationRule,
    n_words: int,
    noise: float = 0.0,
    prompt: bool = False,
) -> HeadFit:
    """Begin with the words that the clients' models name.

    Args:
        results: of the clients, by name; their settings are those of `Vocabulary.settings`.
        rule, n_words, noise, prompt: see `HeadFit`.
    """
    first = next(iter(results.values()))
    settings, n_classes = first.settings, len(first.settings["task"]["label_values"])
    candidates, texts = _most_named([result.settings["candidates"] for result in results.values()])
    return HeadFit(
        rule,
        candidates,
        _neutral_of(settings["candidates"], first.arrays[NEUTRAL], candidates),
        settings["verbalizer"]["label_ids"],
        n_words,
        n_classes,
        most=settings["options"]["k_shot"] * n_classes,
        leave_one_out=not any(result.evaluation.n_validation for result in results.values()),
        noise=noise,
        prompt=prompt,
        texts=texts,
    )


def _most_named(named: Sequence[Sequence[Sequence[Any]]]) -> tuple[np.ndarray, dict[int, str]]:
    """As many candidates as the first client names, those that most clients name; and the texts of all.

    Args:
        named: of each client, pairs of a token id and its text.

    Returns:
        Token ids, int64, in the order of how many clients name them and then of the first naming; texts by id.
    """
    texts: dict[int, str] = {}
    times: Counter[int] = Counter()
    for pairs in named:
        for token, text in pairs:
            texts.setdefault(token, text)
            times[token] += 1
    order = sorted(texts, key=lambda token: -times[token])  # stable
    return np.array(order[: len(named[0])], dtype=np.int64), texts


def _neutral_of(named: Sequence[Sequence[Any]], neutral: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """What a client's model says of candidates behind neutral texts, float32 (T, V); its mean for words it has not.

    Args:
        named: the client's candidates, pairs of a token id and its text.
        neutral: of each of them, float32 (T, number of them).
        wanted: token ids, int64 (V,).
    """
    place, mean = {token: i for i, (token, _) in enumerate(named)}, neutral.mean(axis=1)
    return np.stack([neutral[:, place[t]] if t in place else mean for t in wanted.tolist()], axis=1)
