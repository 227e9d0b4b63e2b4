"""What a site's answer may do to the search distribution, before the server's CMA-ES sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flaretune.aggregation.limits import shrinkage


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

    ``mean`` changes nothing. ``clipped`` looks at how far a mean is from the start of the round, and at S_k: a site
    that is above `robust.FACTOR` times the lower median of either is held to that median, and whatever fitness it
    claims, it is ranked last. The others stay as they are, to the bit. CMA-ES moves its mean by Σ w_r (m_r − m) over
    the ranks r, so that a site moves it by w_M medians if it was held, and else by w_1 · FACTOR medians at the most
    (M = 10: 0.006 and 0.56).

    ``median`` gives all sites the same mean and S_k, the coordinate-wise medians: a claim of fitness has no effect at
    all then, and fewer than half of the sites cannot leave the range of the others in any coordinate. The spread of a
    median of M points is close to that of the M points recombined by rank (M = 10: π/2 / 10 = 0.157 to 1/μ_eff = 0.169
    of a point's variance), so that the server's step size adapts as before.

    Args:
        aggregation: one of `robust.AGGREGATIONS`.
        start: the mean that the sites started from, float64, shape (d,).
        answers: of the round.

    Returns:
        What the server is to recombine; and which sites were far above the others, bool, shape (M,).
    """
    if aggregation == "mean":
        return answers, np.zeros(len(answers.means), dtype=bool)
    steps = answers.means - start  # (M, d)
    shorter = shrinkage(np.linalg.norm(steps, axis=1), down_to=1)
    smaller = shrinkage(answers.sigma_square_sums, down_to=1)
    limited = (shorter < 1) | (smaller < 1)
    if aggregation == "median":
        return _all_alike(answers), limited
    means = np.where(shorter[:, None] < 1, start + shorter[:, None] * steps, answers.means)
    square_sums = np.where(smaller < 1, smaller * answers.sigma_square_sums, answers.sigma_square_sums)
    last = np.nextafter(answers.fitness.max(), np.inf)
    return Answers(means, np.where(limited, last, answers.fitness), square_sums), limited


def _all_alike(answers: Answers) -> Answers:
    n_sites = len(answers.means)
    return Answers(
        np.repeat(np.median(answers.means, axis=0, keepdims=True), n_sites, axis=0),
        np.full(n_sites, np.median(answers.fitness)),
        np.full(n_sites, np.median(answers.sigma_square_sums)),
    )
