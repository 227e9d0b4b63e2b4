"""What a site's answer may do to the search distribution, before the server's CMA-ES sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flaretune.robust import shrinkage


@dataclass(frozen=True, eq=False)
class Answers:
    """What M sites found in a round.

    Attributes:
        means: m_k, float64, shape (M, d).
        fitness: F_k(m_k), float64, shape (M,).
        sigma_square_sums: S_k, float64, shape (M,).
    """

    means: np.ndarray
    fitness: np.ndarray
    sigma_square_sums: np.ndarray


def bounded(aggregation: str, start: np.ndarray, answers: Answers) -> tuple[Answers, np.ndarray]:
    """Hold each answer to what the others say.

    ``plain`` changes nothing. ``clipped`` limits how far a mean is from the start of the round, and its S_k, to
    `robust.FACTOR` times their lower medians; an answer within both stays as it is, to the bit. CMA-ES then moves its
    mean by Σ w_r (m_r − m) over the ranks r of the claimed fitness, so that a site that claims the best one moves it by
    w_1 · FACTOR · median at the most. ``median`` gives all sites the same mean and S_k, the coordinate-wise medians: a
    claim of fitness then has no effect, and fewer than half of the sites cannot leave the range of the others in any
    coordinate. The spread of a median of M points is close to that of the M points recombined by rank (for M = 10,
    π/2 / 10 = 0.157 to 1/μ_eff = 0.169 of a point's variance), so that the server's step size adapts as before.

    Args:
        aggregation: one of `robust.AGGREGATIONS`.
        start: the mean that the sites started from, float64, shape (d,).
        answers: of the round.

    Returns:
        What the server is to recombine; and whether each site was above a limit, bool, shape (M,).
    """
    if aggregation == "plain":
        return answers, np.zeros(len(answers.means), dtype=bool)
    steps = answers.means - start  # (M, d)
    shorter = shrinkage(np.linalg.norm(steps, axis=1))
    smaller = shrinkage(answers.sigma_square_sums)
    limited = (shorter < 1) | (smaller < 1)
    if aggregation == "median":
        return _all_alike(answers), limited
    means = np.where(shorter[:, None] < 1, start + shorter[:, None] * steps, answers.means)
    square_sums = np.where(smaller < 1, smaller * answers.sigma_square_sums, answers.sigma_square_sums)
    return Answers(means, answers.fitness, square_sums), limited


def _all_alike(answers: Answers) -> Answers:
    n_sites = len(answers.means)
    return Answers(
        np.repeat(np.median(answers.means, axis=0, keepdims=True), n_sites, axis=0),
        np.full(n_sites, np.median(answers.fitness)),
        np.full(n_sites, np.median(answers.sigma_square_sums)),
    )
