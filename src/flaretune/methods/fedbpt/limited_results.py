"""What a client's result may do to the search distribution, before the server's CMA-ES recombines all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flaretune.aggregation.base import AggregationRule


@dataclass(frozen=True, eq=False)
class RoundResults:
    """What M clients found in a round.

    Attributes:
        means: m_k, float64, shape (M, d).
        fitness: F_k(m_k), float64, shape (M,).
        sigma_square_sums: S_k, float64, shape (M,).
    """

    means: np.ndarray
    fitness: np.ndarray
    sigma_square_sums: np.ndarray


def limit_results(rule: AggregationRule, start: np.ndarray, results: RoundResults) -> tuple[RoundResults, np.ndarray]:
    """Hold the clients' results to each other.

    A client whose mean or S_k is far above the others is limited by the rule, and ranked last whatever fitness it
    claims. CMA-ES moves its mean by Σ w_r (m_r − m) over the ranks r, so that under `Clipped` a client moves it by w_M
    lower medians of all steps if it was limited, and else by w_1 · FACTOR of them at the most (M = 10: 0.006 and 0.56).

    Under `Median` all clients have the same mean, fitness and S_k. The spread of a median of M points is close to that
    of the M points recombined by rank (M = 10: π/2 / 10 = 0.157 to 1/μ_eff = 0.169 of a point's variance), so that the
    server's step size adapts as before.

    Args:
        rule: the job's.
        start: the mean that the clients started from, float64, shape (d,).
        results: of the round; they are left as they are.

    Returns:
        What the server is to recombine; and which clients were far above the others, bool, shape (M,).
    """
    limited = rule.limit_updates({"mean": start}, [{"mean": mean} for mean in results.means])
    size_factors = rule.limit_sizes(results.sigma_square_sums, down_to=1)
    is_limited = (limited.factors < 1) | (size_factors < 1)
    last = np.nextafter(results.fitness.max(), np.inf)
    fitness = rule.scalars(results.fitness, np.where(is_limited, last, results.fitness))
    square_sums = rule.scalars(results.sigma_square_sums, results.sigma_square_sums * size_factors)
    means = np.stack([update["mean"] for update in limited.updates])  # (M, d)
    return RoundResults(means, fitness, square_sums), is_limited
