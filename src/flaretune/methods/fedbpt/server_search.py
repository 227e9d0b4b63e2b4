"""What the server does in a round: recombine the clients' distributions with a CMA-ES of its own (paper, §3.3)."""

from __future__ import annotations

import warnings

import numpy as np

from flaretune.methods.fedbpt.cma_es import start_strategy, within
from flaretune.methods.fedbpt.distribution import Distribution
from flaretune.methods.fedbpt.pycma import cma


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
        self._seed = seed
        self._bound = bound
        self._local_parents = cma.recombination_weights.RecombinationWeights(local_popsize).mu  # μ_λ
        self._local_sigma = float(sigma0)
        self._start = Distribution(np.zeros(dim), float(sigma0))
        self._strategy: cma.CMAEvolutionStrategy | None = None
        self._parents = 0
        self.norm_limit = norm_limit
        self._norm_limit_upper = norm_limit_upper
        self._equal_weights = equal_weights
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
        """Recombine what the M clients found, and return the new distribution.

        Args:
            means: m_k, float64, shape (M, d), M ≥ 1; in an order that does not depend on who was first.
            fitness: F_k(m_k), float64, shape (M,).
            sigma_square_sums: S_k, float64, shape (M,).
        """
        if self._equal_weights:
            means, fitness, sigma_square_sums = (
                np.mean(a, axis=0, keepdims=True) for a in (means, fitness, sigma_square_sums)
            )
        if len(means) == 1:  # pycma recombines no single point; the same one twice moves the mean onto it
            means, fitness, sigma_square_sums = (np.repeat(a, 2, axis=0) for a in (means, fitness, sigma_square_sums))
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
