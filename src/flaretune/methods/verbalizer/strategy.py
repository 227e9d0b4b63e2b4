"""The server's side of the learned verbalizer: sums of the clients, words chosen by them, and ridge regression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaretune.aggregation.limits import FACTOR
from flaretune.config.options import build
from flaretune.methods.artifact_parts import told_parts
from flaretune.methods.base import Arrays, FitResult, InitializeResult, Numbers, Resumed, Strategy
from flaretune.methods.message import MOST, read_arrays, read_natural
from flaretune.methods.verbalizer.artifact import VerbalizerArtifact, save_verbalizer
from flaretune.methods.verbalizer.config import ROUNDS, VerbalizerConfig
from flaretune.methods.verbalizer.head import Head, head_of, label_word_head
from flaretune.methods.verbalizer.private import deviation
from flaretune.methods.verbalizer.ridge import (
    LEAST_VARIANCE,
    TEMPERATURES,
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
PASSES = ROUNDS  # over a client's texts at the most: a process that was started anew makes its own


class VerbalizerStrategy(Strategy):
    """Which words, with which weights, how much shrinkage: a round for each; see `Strategy`."""

    num_rounds = ROUNDS

    def start(self, results: Mapping[str, InitializeResult], resumed: Resumed | None, folder: Path) -> dict[str, str]:
        first = next(iter(results.values()))
        self.settings = first.settings
        self._options = build(VerbalizerConfig, self.settings["options"])
        told = self.settings["verbalizer"]
        self._n_templates, self._n_classes = len(told["templates"]), len(self.settings["task"]["label_values"])
        self._step = 0
        self._shrinkage: float | None = None  # λ of the head
        self._leave_one_out = not any(result.evaluation.n_validation for result in results.values())
        self._labels = label_word_head(told["label_ids"], self._n_classes)
        self._candidates, self._texts = most_named([r.settings["candidates"] for r in results.values()])
        self._neutral = _of_candidates(first, self._candidates)
        self._words: dict[str, np.ndarray] = {}  # words, center, scale
        self._ridge: Ridge | None = None
        self._head: Head | None = None
        if resumed:
            self._resume(resumed)
        return {}

    def _resume(self, resumed: Resumed) -> None:
        arrays = resumed.arrays
        self._texts |= {int(token): text for token, text in resumed.state["texts"].items()}
        self._words = {name: arrays[name] for name in ("words", "center", "scale") if name in arrays}
        if "gram.gram" in arrays:
            self._solve(
                GramSums(*(arrays[f"gram.{name}"] for name in ("counts", "cross", "gram"))), resumed.state["noise"]
            )
        if "head.words" in arrays:
            self._head = head_of({name[5:]: values for name, values in arrays.items() if name.startswith("head.")})

    @property
    def _most(self) -> int:
        """Texts that a client can have, of a kind."""
        return self._options.k_shot * self._n_classes

    def configure(self, round_number: int) -> tuple[Arrays, Numbers]:
        self._step = round_number
        if round_number == 1:
            return {"candidates": self._candidates}, {}
        if round_number == 2:
            return self._words, {}
        ridge, numbers = self._ridge, {"leave_one_out": int(self._leave_one_out), "n_train": self._ridge.n}
        arrays = {**self._words, "weights": ridge.weights, "biases": ridge.biases}
        if self._leave_one_out:
            solved = {"mean": ridge.center, "basis": ridge.basis}
            arrays |= {**solved, "spectrum": ridge.spectrum, "shrinkages": ridge.shrinkages}
        return arrays, numbers

    def check(self, result: FitResult) -> FitResult:
        o, counters = self._options, result.counters
        n_train = read_natural(result.numbers, "n_train")
        most_forwards = PASSES * 2 * self._most * self._n_templates
        for name, value, most in (
            ("n_train", n_train, self._most),
            ("queries", counters.queries, self._n_templates),
            ("example_forwards", counters.example_forwards, most_forwards),
        ):
            if value > most:
                raise ValueError(f"{name!r} is {value}, and {most} is the most that follows from the settings")
        arrays, n_classes, noised = result.arrays, self._n_classes, bool(o.dp_noise)
        if self._step == 1:
            read = read_word_statistics(
                arrays, self._n_templates * len(self._candidates), n_classes, self._most
            ).arrays()
        elif self._step == 2:
            read = read_gram_sums(arrays, len(self._words["words"]), n_classes, self._most, noised).arrays()
        else:
            shapes = {"losses": (len(self._ridge.weights), len(TEMPERATURES)), "n": (1,)}
            read = {name: values.astype(np.float64) for name, values in read_arrays(arrays, shapes).items()}
            if np.any(read["losses"] < 0) or np.any(read["losses"] > MOST) or not 0 <= read["n"][0] <= self._most:
                raise ValueError("array 'losses' or 'n' holds what no texts can have")
        return FitResult(read, result.numbers, counters, result.evaluation)

    def aggregate(self, round_number: int, results: Mapping[str, FitResult]) -> list[str]:
        arrays, clients = [r.arrays for r in results.values()], list(results)
        if round_number == 1:
            parts = [WordStatistics(**a) for a in arrays]
            parts, far = self._limit(parts, [p.counts.sum() for p in parts], [p.squares.sum() for p in parts])
            self._choose_words(add_word_statistics(parts))
        elif round_number == 2:
            n_features = len(self._words["words"])
            parts = [read_gram_sums(a, n_features, self._n_classes, np.inf, noised=True) for a in arrays]
            parts, far = self._limit(parts, [p.n for p in parts], [np.trace(p.gram) for p in parts])
            o = self._options
            noise = deviation(o.dp_noise, o.dp_clip, self._most) * np.sqrt(len(parts))
            self._solve(add_gram_sums(parts), float(noise))
        else:
            sizes, summed = np.array([a["n"][0] for a in arrays]), np.stack([a["losses"] for a in arrays])
            factors, far = self._limits(sizes, summed.sum(axis=(1, 2)))
            self._choose_head(float(sizes @ factors), (factors[:, None, None] * summed).sum(axis=0))
        return [client for client, is_far in zip(clients, far, strict=True) if is_far]

    # ---- limits ----

    def _limits(self, sizes: Sequence[float], totals: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """What each client's sums are multiplied by under the job's rule, and who was far above the others.

        Args:
            sizes: numbers of texts, (M,).
            totals: what the sums come to, not negative, (M,); the rule looks at them by text.
        """
        sizes, totals = np.asarray(sizes, dtype=np.float64), np.asarray(totals, dtype=np.float64)
        by_size = self.rule.limit_sizes(sizes, down_to=FACTOR)
        by_text = self.rule.limit_sizes(np.maximum(totals, 0) / np.maximum(sizes, 1), down_to=1)
        return by_size * by_text, (by_size < 1) | (by_text < 1)

    def _limit(self, parts: list, sizes: Sequence[float], totals: Sequence[float]) -> tuple[list, np.ndarray]:
        factors, far = self._limits(sizes, totals)
        return [scaled(part, factor) for part, factor in zip(parts, factors, strict=True)], far

    # ---- the three steps ----

    def _choose_words(self, statistics: WordStatistics) -> None:
        n_candidates = len(self._candidates)
        if self._options.dp_noise:  # nothing is told of the texts: those that are most probable anyway
            within = np.arange(min(self._options.n_words, n_candidates))
            chosen = np.concatenate([within + n_candidates * t for t in range(self._n_templates)])
            center, variance = self._neutral.reshape(-1)[chosen].astype(np.float64), np.ones(len(chosen))
        else:
            groups = np.repeat(np.arange(self._n_templates), n_candidates)
            label_words = [t * n_candidates + i for t, i in self._label_features()]
            chosen = choose_words(statistics, groups, self._options.n_words, label_words)
            n = statistics.counts.sum()
            center = statistics.sums.sum(axis=0)[chosen] / n
            variance = statistics.squares[chosen] / n - np.square(center)
        words = np.stack([chosen // n_candidates, self._candidates[chosen % n_candidates]], axis=-1)
        self._words = {"words": words, "center": center, "scale": np.sqrt(np.maximum(variance, LEAST_VARIANCE))}

    def _label_features(self) -> list[tuple[int, int]]:
        """The label words behind every template, as template and place among the candidates."""
        labels = set(self._labels.words[:, 1].tolist())
        places = [place for place, token in enumerate(self._candidates.tolist()) if token in labels]
        return [(template, place) for template in range(self._n_templates) for place in places]

    def _solve(self, sums: GramSums, noise: float) -> None:
        """The heads of the grid; `noise` is the standard deviation of that in `sums`."""
        self._sums, self._noise = sums, noise
        # the largest eigenvalue of symmetric Gaussian noise, about
        spread = 2 * noise * np.sqrt(len(sums.gram))
        self._ridge = solve_noised(sums, float(spread)) if noise else solve(sums)

    def _choose_head(self, n: float, summed: np.ndarray) -> None:
        if n:
            shrinkage, temperature = choose_head(summed)
            tau = float(TEMPERATURES[temperature])
        else:  # nothing to choose by; with noise, there is one λ alone
            shrinkage, tau = len(self._ridge.weights) // 2, NOISED_TEMPERATURE
        weights = self._ridge.weights[shrinkage] / self._words["scale"][:, None]
        bias = self._ridge.biases[shrinkage] - self._words["center"] @ weights
        if self._options.dp_noise:  # its features were divided by this before they were clipped
            weights, bias = _undo_clipping(weights, self._ridge.biases[shrinkage], self._words)
        self._shrinkage = float(self._ridge.shrinkages[shrinkage])
        self._head = Head(self._words["words"], weights, bias, tau)

    # ---- what comes of it ----

    def evaluated_arrays(self) -> Arrays:
        return {} if self._head is None else self._head.arrays()

    def save(self, path: Path, result: Mapping[str, Any]) -> bool:
        head = self._head or self._labels
        if not len(head.words):
            return False  # no label words, and nothing learned yet
        texts = [self._texts.get(token, "") for token in head.words[:, 1].tolist()]
        templates = self.settings["verbalizer"]["templates"]
        chosen = {} if self._shrinkage is None else {"shrinkage": self._shrinkage}
        artifact = VerbalizerArtifact(head, texts, templates, **told_parts(self.settings), result={**result, **chosen})
        save_verbalizer(artifact, path)
        return True

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays: dict[str, np.ndarray] = dict(self._words)
        if self._ridge is not None:
            arrays |= {f"gram.{name}": values for name, values in self._sums.arrays().items()}
            arrays["gram.gram"] = self._sums.gram
        if self._head is not None:
            arrays |= {f"head.{name}": values for name, values in self._head.arrays().items()}
        chosen = self._words["words"][:, 1].tolist() if self._words else []
        texts = {str(token): self._texts.get(token, "") for token in chosen}
        return arrays, {"texts": texts, "noise": self._noise if self._ridge is not None else 0.0}

    def metrics(self, results: Mapping[str, FitResult], private: bool) -> tuple[Numbers, Mapping[str, Numbers]]:
        words = {"words": len(self._words["words"])} if self._words else {}
        head = {"temperature": self._head.temperature} if self._head is not None else {}
        return {**words, **head}, {}


def most_named(named: Sequence[Sequence[Sequence[Any]]]) -> tuple[np.ndarray, dict[int, str]]:
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


def _of_candidates(first: InitializeResult, candidates: np.ndarray) -> np.ndarray:
    """What the first client's model says behind neutral texts, float32 (T, V); its mean for words it does not name."""
    neutral, place = first.arrays["neutral"], {token: i for i, (token, _) in enumerate(first.settings["candidates"])}
    mean = neutral.mean(axis=1)
    return np.stack([neutral[:, place[t]] if t in place else mean for t in candidates.tolist()], axis=1)


def _undo_clipping(
    weights: np.ndarray, bias: np.ndarray, words: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias for log-probabilities, of those for features as `private.clipped` makes them."""
    from flaretune.methods.verbalizer.private import LONGEST

    weights = weights / (LONGEST * np.sqrt(max(len(weights), 1)))
    return weights, bias - words["center"] @ weights
