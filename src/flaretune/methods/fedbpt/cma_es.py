"""CMA-ES (pycma) as a client runs it in a round, and as the server recombines what the clients found (paper, §3.3)."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from flaretune.aggregation.base import AggregationRule
from flaretune.methods.fedbpt.distribution import Distribution

UNUSED = ("matplotlib", "scipy")  # pycma has its own for what it takes of scipy, in a surrogate that is not used here


@contextmanager
def _without(packages: tuple[str, ...]) -> Iterator[None]:
    """Within it, packages seem not to be installed; those that were imported before are there again afterwards.

    pycma plots with matplotlib and scipy, which are 100 MiB of a process that only searches.
    """
    before = {name: sys.modules[name] for name in packages if name in sys.modules}
    sys.modules.update(dict.fromkeys(packages))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that plots are not available
            yield
    finally:
        for name in packages:
            sys.modules.pop(name, None)
        sys.modules.update(before)


with _without(UNUSED):
    import cma


def start_strategy(
    distribution: Distribution, popsize: int, seed: int, bound: float = 0.0, parents: int | None = None
) -> cma.CMAEvolutionStrategy:
    """A CMA-ES that starts from a distribution's mean, step size and covariance, with fresh evolution paths.

    Step-size adaptation is set to CSA, the paper's: pycma's own default changed between versions. Random
    numbers come from a generator of their own, not from numpy's global one.

    Args:
        distribution: where to start.
        popsize: λ, points a generation.
        seed: of the points that are drawn.
        bound: if positive, every coordinate of a point stays within ±bound, and the mean is brought within it.
        parents: μ, how many points are recombined; None for pycma's default, about half of λ.
    """
    rng = np.random.default_rng(seed)
    options = {
        "popsize": popsize,
        # the class: a string is taken and fails later, inside tell
        "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA,
        "seed": np.nan,  # leave numpy's global generator alone
        "randn": lambda *shape: rng.standard_normal(shape),
        "verbose": -9,
    }
    mean = within(distribution.mean, bound)
    if bound > 0:
        options["bounds"] = [-bound, bound]
    if parents is not None:
        options["CMA_mu"] = parents
    strategy = cma.CMAEvolutionStrategy(mean, distribution.sigma, options)
    if distribution.covariance is not None:
        strategy.sm.C = distribution.covariance_matrix().copy()
        strategy.sm.update_now(-1)  # decompose C now, whatever the sampler's lazy schedule says
    return strategy


def within(points: np.ndarray, bound: float) -> np.ndarray:
    """A copy of points, float of any shape, with every coordinate within ±bound; unchanged if bound is 0.

    pycma refuses what is outside, be it by a rounding error only: float32, in which means travel, has no 0.1.
    """
    return np.clip(points, -bound, bound) if bound > 0 else points.copy()


# ---- a client ----


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


# ---- the server ----


class RoundResults(NamedTuple):
    """What M clients found in a round, in an order that does not depend on who was first.

    Attributes:
        means: m_k, float64, shape (M, d), M ≥ 1.
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


class ServerSearch:
    """The server's CMA-ES, whose population are the means that the clients found.

    Args:
        dim: d, the intrinsic dimension.
        sigma0: the initial step size.
        local_popsize: λ of the clients.
        seed: of the server's CMA-ES, which draws points only to keep pycma's order of calls.
        bound: see `start_strategy`.
        norm_limit: the longest that a searched vector may be, which grows by 1 a round, the first included; None for
            no limit.
        norm_limit_upper: it stops growing when the mean is this long.
        equal_weights: recombine the average of the means, whatever their fitness.

    Attributes:
        norm_limit: that of the next round.
    """

    def __init__(
        self,
        dim: int,
        sigma0: float,
        local_popsize: int,
        seed: int,
        bound: float = 0.0,
        norm_limit: float | None = None,
        norm_limit_upper: float = 0.0,
        equal_weights: bool = False,
    ):
        self._seed, self._bound, self._equal_weights = seed, bound, equal_weights
        self._local_parents = cma.recombination_weights.RecombinationWeights(local_popsize).mu  # μ_λ
        self._local_sigma = float(sigma0)
        self._start = Distribution(np.zeros(dim), float(sigma0))
        self._strategy: cma.CMAEvolutionStrategy | None = None
        self._parents = 0
        self.norm_limit, self._norm_limit_upper = norm_limit, norm_limit_upper
        self._grow_norm_limit()

    @property
    def distribution(self) -> Distribution:
        """What the clients start the next round from."""
        if self._strategy is None:
            return self._start
        # copies: pycma goes on changing its own arrays
        mean, covariance = self._strategy.result.xfavorite, self._strategy.sm.covariance_matrix
        return Distribution(np.array(mean), self._local_sigma, np.array(covariance))

    def update(self, means: np.ndarray, fitness: np.ndarray, sigma_square_sums: np.ndarray) -> Distribution:
        """Recombine what the clients found (see `RoundResults`), and return the new distribution."""
        found = (means, fitness, sigma_square_sums)
        if self._equal_weights:
            found = [np.mean(values, axis=0, keepdims=True) for values in found]
        if len(found[0]) == 1:  # pycma recombines no single point; the same one twice moves the mean onto it
            found = [np.repeat(values, 2, axis=0) for values in found]
        means, fitness, sigma_square_sums = found
        strategy = self._strategy_for(len(means))
        pooled_sigma = float(np.sqrt(np.mean(sigma_square_sums) / self._local_parents))  # σ_g
        strategy.sigma = pooled_sigma
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cma.evolution_strategy.InjectionWarning)
            strategy.ask()  # tell wants it; the points are not used
            points = within(np.asarray(means, dtype=np.float64), self._bound)
            strategy.tell(list(points), np.asarray(fitness, dtype=np.float64).tolist())
        self._local_sigma *= strategy.sigma / pooled_sigma
        self._grow_norm_limit()
        return self.distribution

    def _grow_norm_limit(self) -> None:
        if self.norm_limit is not None and np.linalg.norm(self.distribution.mean) < self._norm_limit_upper:
            self.norm_limit += 1

    def _strategy_for(self, parents: int) -> cma.CMAEvolutionStrategy:
        """The server's strategy, set to recombine as many means as there are."""
        if parents != self._parents:
            fresh = start_strategy(self._start, parents, self._seed, self._bound, parents)
            if self._strategy is None:
                self._strategy = fresh
            else:  # weights and learning rates follow the number of clients; everything learned stays
                self._strategy.sp = fresh.sp
                self._strategy.adapt_sigma.initialize_settings(self._strategy, reset=True)
            self._parents = parents
        return self._strategy
