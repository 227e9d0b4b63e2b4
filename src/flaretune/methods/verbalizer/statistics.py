"""What a client sends instead of its texts: sums over them, which add up over clients. All in float64.

A feature is the log-probability of a word behind a template, F of them; y is the one-hot class of a text, C classes.
Whatever follows from other sums is not sent, so that no message can contradict itself: Σ φ is Σ φ yᵀ summed over the
classes, a Gram matrix is its upper triangle, and the number of texts is that of all classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from flaretune.methods.message import MOST, read_arrays

if TYPE_CHECKING:
    from flaretune.privacy.release import Releases

Arrays = Mapping[str, np.ndarray]
ROUNDING = 1e-6  # relative, of sums that were made elsewhere
LONGEST = 1.0  # of a text's features, in units of their number's square root: one nat a word on average


@dataclass(frozen=True, eq=False)
class WordStatistics:
    """How log-probabilities differ between classes: what words are chosen by.

    Attributes:
        counts: texts of each class, float64 (C,).
        sums: Σ ℓ by class, float64 (C, F).
        squares: Σ ℓ² over all classes, float64 (F,).
    """

    counts: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        return {"counts": self.counts, "sums": self.sums, "squares": self.squares}


@dataclass(frozen=True, eq=False)
class GramSums:
    """All that ridge regression needs to know of texts.

    Attributes:
        counts: texts of each class, float64 (C,).
        cross: Σ φ yᵀ, float64 (F, C).
        gram: Σ φ φᵀ, float64 (F, F), symmetric.
    """

    counts: np.ndarray
    cross: np.ndarray
    gram: np.ndarray

    @property
    def n(self) -> float:
        """Number of texts."""
        return float(self.counts.sum())

    def arrays(self) -> dict[str, np.ndarray]:
        """As they are sent: the Gram matrix as its upper triangle, float64 (F(F+1)/2,)."""
        return {"counts": self.counts, "cross": self.cross, "gram": self.gram[np.triu_indices(len(self.gram))]}


Sums = TypeVar("Sums", WordStatistics, GramSums)


def one_hot(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Class ids, int (N,) → float64 (N, C)."""
    return np.eye(n_classes)[np.asarray(labels, dtype=np.int64)]


def word_statistics(features: np.ndarray, labels: np.ndarray, n_classes: int) -> WordStatistics:
    """Of N texts, which may be none: features, float (N, F), and class ids, int (N,)."""
    features, targets = np.asarray(features, dtype=np.float64), one_hot(labels, n_classes)
    return WordStatistics(targets.sum(axis=0), targets.T @ features, np.square(features).sum(axis=0))


def gram_sums(features: np.ndarray, labels: np.ndarray, n_classes: int) -> GramSums:
    """Of N texts, which may be none: features, float (N, F), and class ids, int (N,)."""
    features, targets = np.asarray(features, dtype=np.float64), one_hot(labels, n_classes)
    gram = features.T @ features
    return GramSums(targets.sum(axis=0), features.T @ targets, (gram + gram.T) / 2)


def one_against_rest(statistics: WordStatistics, class_id: int) -> WordStatistics:
    """The same texts in two classes: one of theirs, and all others."""

    def joined(values: np.ndarray) -> np.ndarray:
        return np.stack([values[class_id], values.sum(axis=0) - values[class_id]])

    return WordStatistics(joined(statistics.counts), joined(statistics.sums), statistics.squares)


def added(parts: Sequence[Sums]) -> Sums:
    """Of all clients together."""
    kind = type(parts[0])
    return kind(*(np.sum([getattr(p, name) for p in parts], axis=0) for name in kind.__annotations__))


def scaled(part: Sums, factor: float) -> Sums:
    """As if every text counted so much."""
    return part if factor == 1 else type(part)(*(getattr(part, name) * factor for name in part.__annotations__))


def read_word_statistics(arrays: Arrays, n_features: int, n_classes: int, most: float) -> WordStatistics:
    """Word statistics as a client has sent them.

    Args:
        arrays: of the message.
        n_features, n_classes: F and C.
        most: texts that a client can have.

    Raises:
        ValueError: something is missing, too much, of another size, not finite, or cannot be.
    """
    shapes = {"counts": (n_classes,), "sums": (n_classes, n_features), "squares": (n_features,)}
    found = WordStatistics(**_float64(arrays, shapes))
    _check_counts(found.counts, most)
    _check_squares(found.counts, found.sums, found.squares, "squares")
    return found


def read_gram_sums(arrays: Arrays, n_features: int, n_classes: int, most: float, noised: bool = False) -> GramSums:
    """Gram sums as a client has sent them; see `read_word_statistics`.

    Args:
        noised: noise was added, so that only sizes can be checked.
    """
    upper = np.triu_indices(n_features)
    shapes = {"counts": (n_classes,), "cross": (n_features, n_classes), "gram": (len(upper[0]),)}
    read = _float64(arrays, shapes)
    gram = np.zeros((n_features, n_features))
    gram[upper] = read["gram"]
    gram = gram + np.triu(gram, 1).T
    if not noised:
        _check_counts(read["counts"], most)
        _check_squares(read["counts"], read["cross"].T, np.diag(gram), "gram")
        limits = np.sqrt(np.outer(np.diag(gram), np.diag(gram)))  # Cauchy and Schwarz
        if np.any(np.abs(gram) > limits * (1 + ROUNDING) + ROUNDING):
            raise ValueError("array 'gram' is no sum of squares: a product is above the squares that it is of")
    return GramSums(read["counts"], read["cross"], gram)


def _float64(arrays: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    read = {name: values.astype(np.float64) for name, values in read_arrays(arrays, shapes).items()}
    for name, values in read.items():
        if np.any(np.abs(values) > MOST):  # sums and products of such stay finite
            raise ValueError(f"array {name!r} holds numbers above {MOST:g}")
    return read


def _check_counts(counts: np.ndarray, most: float) -> None:
    if np.any((counts < 0) | (counts != np.round(counts))) or counts.sum() > most:
        raise ValueError(f"array 'counts' is no numbers of texts of each class, {most:g} at the most")


def _check_squares(counts: np.ndarray, sums: np.ndarray, squares: np.ndarray, name: str) -> None:
    """Squares are at least what the sums of each class leave no choice of; of no texts, all sums are zero."""
    if np.any(sums[counts == 0] != 0):
        raise ValueError("a class without texts has sums that are not zero")
    least = (np.square(sums) / np.maximum(counts, 1)[:, None]).sum(axis=0)
    if np.any(squares < least * (1 - ROUNDING) - ROUNDING) or (counts.sum() == 0 and np.any(squares != 0)):
        raise ValueError(f"array {name!r} holds squares below what its sums come to")


# ---- one noised release of sums, in place of all that a client would send of its texts ----


def clipped(features: np.ndarray) -> np.ndarray:
    """Features, float64 (N, F), of length 1 at most: divided by `LONGEST` √F, and shortened where longer."""
    features = features / (LONGEST * np.sqrt(max(features.shape[1], 1)))
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1.0)


def release_sums(releases: Releases, arrays: dict[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """Gram sums (`statistics.GramSums.arrays`) with noise, and without the numbers of texts.

    They are divided by the most texts that a client can have before they are shortened to --dp_clip and noised, so that
    the options alone say how large the noise is (`deviation`).
    """
    sums = {name: arrays[name] / most for name in ("cross", "gram")}
    noised = releases.release({name: np.zeros_like(values) for name, values in sums.items()}, sums)
    return {"counts": np.zeros_like(arrays["counts"]), **{name: values * most for name, values in noised.items()}}


def deviation(dp_noise: float, dp_clip: float, most: int) -> float:
    """Standard deviation of the noise on each number of a client's sums."""
    return dp_noise * 2 * dp_clip * most
