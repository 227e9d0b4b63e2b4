"""What a client does in a round: a few generations of CMA-ES on its own data (paper, Algorithm 1, client side)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flaretune.methods.fedbpt.cma_es import start_strategy
from flaretune.methods.fedbpt.distribution import Distribution
from flaretune.methods.fedbpt.pycma import cma


@dataclass(frozen=True)
class LocalResult:
    """What a client found in a round.

    Attributes:
        mean: m_k, float64, shape (d,).
        fitness: F_k(m_k).
        sigma_square_sum: S_k, the sum over the generations of the squared step size each started with.
        queries: points that were evaluated.
    """

    mean: np.ndarray
    fitness: float
    sigma_square_sum: float
    queries: int


def local_search(
    distribution: Distribution,
    objective: Callable[[np.ndarray], np.ndarray],
    *,
    generations: int,
    popsize: int,
    seed: int,
    bound: float = 0.0,
    norm_limit: float | None = None,
) -> LocalResult:
    """Run CMA-ES for a number of generations from the server's distribution.

    Args:
        distribution: mean, step size and covariance to start from.
        objective: F_k: points, float64 (λ, d) → losses, float (λ,); lower is better.
        generations: I.
        popsize: λ ≥ 2.
        seed: of the points drawn.
        bound: see `start_strategy`.
        norm_limit: if given, points (and the mean that is returned) longer than this are scaled down to it.

    Raises:
        FloatingPointError: the objective gave a value that is not finite.
    """
    strategy = start_strategy(distribution, popsize, seed, bound)
    sigma_square_sum = 0.0
    queries = 0
    with warnings.catch_warnings():
        # Points shortened to norm_limit are not the ones pycma drew; it says so for each of them.
        warnings.simplefilter("ignore", cma.evolution_strategy.InjectionWarning)
        for _ in range(generations):
            sigma_square_sum += float(strategy.sigma) ** 2
            points = limit_norm(np.asarray(strategy.ask()), norm_limit)
            losses = _evaluate(objective, points)
            queries += len(points)
            strategy.tell(list(points), losses.tolist())
    mean = limit_norm(np.asarray(strategy.result.xfavorite)[None], norm_limit)  # the mean, within the bound
    fitness = float(_evaluate(objective, mean)[0])
    return LocalResult(mean[0], fitness, sigma_square_sum, queries + 1)


def limit_norm(points: np.ndarray, limit: float | None) -> np.ndarray:
    """Scale the points, shape (λ, d), whose Euclidean length exceeds `limit` down to it."""
    if limit is None:
        return points
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    return points * np.minimum(1.0, limit / np.maximum(lengths, np.finfo(float).tiny))


def _evaluate(objective: Callable[[np.ndarray], np.ndarray], points: np.ndarray) -> np.ndarray:
    losses = np.asarray(objective(points), dtype=np.float64)
    if losses.shape != (len(points),):
        raise ValueError(f"the objective gave shape {losses.shape} for {len(points)} points")
    if not np.all(np.isfinite(losses)):
        raise FloatingPointError(
            f"the model gave a loss of {losses[~np.isfinite(losses)][0]}: try --dtype float32 or a smaller --sigma"
        )
    return losses
