"""Ridge regression on one-hot targets from sums (`statistics.GramSums`), and which words it is made on.

It depends on the sums alone, so that it does not matter how texts are split over clients (Fed3R, arXiv 2406.01116).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flaretune.errors import UserError
from flaretune.methods.verbalizer.statistics import GramSums, WordStatistics, one_hot

# λ, as multiples of the features' mean sum of squares: from hardly any shrinkage to almost the classes' means.
LAMBDAS = np.geomspace(1e-3, 1e3, 19)
# τ of softmax(scores / τ); scores of the classes are around 0 and 1.
TEMPERATURES = np.geomspace(0.02, 2.0, 21)
# Size of the scores that λ shrinks towards, and how many texts of each class they count for: chosen for film reviews,
# right for news too (docs/negative-results.md).
TOWARD_SCORE, TOWARD_TEXTS = 0.2, 8
LEAST_VARIANCE = 1e-10  # of a log-probability; below, a word says the same of every text


@dataclass(frozen=True, eq=False)
class Ridge:
    """Heads for a grid of λ, and what leave-one-out errors need.

    Attributes:
        center: mean of the features, float64 (F,).
        prior: shares of the classes, float64 (C,).
        basis: eigenvectors of the centred Gram matrix, its columns, float64 (F, F).
        spectrum: their eigenvalues, at least 0, float64 (F,).
        shrinkages: λ, float64 (L,).
        weights: float64 (L, F, C).
        n: number of texts.
    """

    center: np.ndarray
    prior: np.ndarray
    basis: np.ndarray
    spectrum: np.ndarray
    shrinkages: np.ndarray
    weights: np.ndarray
    n: float

    @property
    def biases(self) -> np.ndarray:
        """float64 (L, C)."""
        return self.prior - self.center @ self.weights


def separation(statistics: WordStatistics) -> np.ndarray:
    """Between-class over within-class variance of each feature, float64 (F,); -1 where it does not vary."""
    counts, n = statistics.counts[:, None], statistics.counts.sum()
    if n == 0:
        return np.full(len(statistics.squares), -1.0)
    means = statistics.sums / np.maximum(counts, 1)
    mean = statistics.sums.sum(axis=0) / n
    between = (counts * np.square(means - mean)).sum(axis=0) / n
    total = statistics.squares / n - np.square(mean)
    within = np.maximum(total - between, LEAST_VARIANCE)
    varies = total > LEAST_VARIANCE + 1e-12 * np.square(mean)
    return np.where(varies, between / within, -1.0)


def choose_words(
    statistics: WordStatistics, groups: np.ndarray, n_words: int, always: Sequence[int] = ()
) -> np.ndarray:
    """The features that the head is made on.

    Args:
        statistics: of all clients, of all features.
        groups: of each feature, its template, int (F,).
        n_words: how many of each template; those of `always`, where these are more.
        always: features that are among them, as far as they vary.

    Returns:
        Indices, int64, ascending.

    Raises:
        UserError: none of them varies.
    """
    score = separation(statistics)
    rank = np.where(np.isin(np.arange(len(score)), always) & (score >= 0), np.inf, score)
    chosen = []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        most = max(n_words, int(np.isposinf(rank[members]).sum()))
        best = members[np.lexsort((members, -rank[members]))][:most]
        chosen += [feature for feature in best if rank[feature] >= 0]
    if not chosen:
        raise UserError(
            "no word's log-probability differs between the clients' texts, so that nothing can be learned from them: "
            "give other texts, or a template that asks about them"
        )
    return np.array(sorted(chosen), dtype=np.int64)


def solve(sums: GramSums, toward: np.ndarray | None = None) -> Ridge:
    """Ridge regression of centred one-hot targets on centred features, for every λ of the grid.

    Args:
        sums: of all clients.
        toward: weights W₀ that λ shrinks towards, float64 (F, C), in any size: the more texts there are, the smaller
            they are made. None for zeros.

    Raises:
        UserError: there are no texts.
    """
    n = sums.n
    if n <= 0:
        raise UserError("no client has a labelled text to learn from; give labelled texts")
    center, prior = sums.cross.sum(axis=1) / n, sums.counts / n
    gram, cross = sums.gram - n * np.outer(center, center), sums.cross - n * np.outer(center, prior)
    if toward is not None:
        toward = toward * _size(toward, gram, n)
    return _solve(gram, cross, center, prior, n, toward=toward)


def _size(toward: np.ndarray, gram: np.ndarray, n: float) -> float:
    """By which weights, (F, C), are multiplied to give scores of the size that they may have beside n texts."""
    mean_square = np.sum(toward * (gram @ toward)) / (n * toward.shape[1])
    as_many = TOWARD_TEXTS * toward.shape[1]
    return TOWARD_SCORE * as_many / (as_many + n) / np.sqrt(mean_square) if mean_square > LEAST_VARIANCE else 0.0


def solve_noised(sums: GramSums, shrinkage: float, toward: np.ndarray | None = None) -> Ridge:
    """The same where noise was added and no numbers of texts are told: as if features and classes had been centred.

    Args:
        sums: of all clients, of features that are about zero on average.
        shrinkage: the one λ.
        toward: weights W₀ that λ shrinks towards, as they are, float64 (F, C); None for zeros.
    """
    n_features, n_classes = sums.cross.shape
    center, prior = np.zeros(n_features), np.full(n_classes, 1 / n_classes)
    cross = sums.cross - sums.cross.mean(axis=1, keepdims=True)
    return _solve(sums.gram, cross, center, prior, 0.0, np.array([shrinkage]), toward)


def _solve(
    gram: np.ndarray,
    cross: np.ndarray,
    center: np.ndarray,
    prior: np.ndarray,
    n: float,
    shrinkages: np.ndarray | None = None,
    toward: np.ndarray | None = None,
) -> Ridge:
    """Minimises the squared errors + λ ‖W − W₀‖²: W = W₀ + (G + λ)⁻¹ (φᵀy − G W₀), G without negative eigenvalues."""
    toward = np.zeros_like(cross) if toward is None else toward
    spectrum, basis = np.linalg.eigh(gram)
    spectrum = np.maximum(spectrum, 0.0)  # rounding, or noise
    if shrinkages is None:
        shrinkages = LAMBDAS * max(spectrum.mean(), np.finfo(float).tiny)
    rotated = basis.T @ cross - spectrum[:, None] * (basis.T @ toward)  # (F, C)
    weights = toward + basis @ (rotated / (spectrum + shrinkages[:, None])[:, :, None])  # (L, F, C)
    return Ridge(center, prior, basis, spectrum, shrinkages, weights, n)


def leave_one_out(
    features: np.ndarray,
    labels: np.ndarray,
    center: np.ndarray,
    basis: np.ndarray,
    spectrum: np.ndarray,
    shrinkages: np.ndarray,
    weights: np.ndarray,
    biases: np.ndarray,
    n: float,
) -> np.ndarray:
    """Scores that each text would get from heads made without it: y − e / (1 − h) (Allen's PRESS).

    Args:
        features, labels: float (N, F) and int (N,), some of the texts that the heads were made with.
        center, basis, spectrum, shrinkages, weights, biases, n: see `Ridge`; n of all texts.

    Returns:
        float64 (L, N, C).
    """
    targets = one_hot(labels, weights.shape[-1])
    rotated = (np.asarray(features, dtype=np.float64) - center) @ basis  # (N, F)
    leverages = 1 / n + (1 / (spectrum + shrinkages[:, None])) @ np.square(rotated).T  # (L, N)
    errors = targets - (np.asarray(features, dtype=np.float64) @ weights + biases[:, None])
    return targets - errors / np.maximum(1 - leverages, 1e-9)[:, :, None]


def losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross entropy of softmax(scores / τ), summed over texts, for every temperature of the grid.

    Args:
        scores: float (L, N, C).
        labels: int (N,).

    Returns:
        float64 (L, len(TEMPERATURES)).
    """
    of_label = scores[:, np.arange(len(labels)), labels]  # (L, N)
    best = scores.max(axis=-1)
    summed = []
    for temperature in TEMPERATURES:
        log_sums = np.log(np.exp((scores - best[:, :, None]) / temperature).sum(axis=-1))
        summed.append((log_sums + (best - of_label) / temperature).sum(axis=-1))
    return np.stack(summed, axis=-1)


def choose_head(summed: np.ndarray, n_classes: int) -> tuple[int, int]:
    """λ of the smallest loss, of equal ones the largest, then its temperature, as indices.

    Few texts can all be classified correctly, and the loss then falls with τ to nothing. So τ has one text more to
    serve, which scores 1 for one of the classes and may be of any (as in Laplace's rule of succession): among few texts
    it keeps probabilities modest, among many it counts for nothing. No prediction depends on τ.

    Args:
        summed: of `losses`, float64 (L, len(TEMPERATURES)).
        n_classes: C.
    """
    best = np.flatnonzero(summed.min(axis=1) == summed.min())[-1]
    unknown = np.log(np.exp(1 / TEMPERATURES) + n_classes - 1) - 1 / (n_classes * TEMPERATURES)
    return int(best), int(np.argmin(summed[best] + unknown))
