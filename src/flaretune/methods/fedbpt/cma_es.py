"""How this project sets up pycma, at the clients and at the server alike."""

from __future__ import annotations

import numpy as np

from flaretune.methods.fedbpt.distribution import Distribution
from flaretune.methods.fedbpt.pycma import cma


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
