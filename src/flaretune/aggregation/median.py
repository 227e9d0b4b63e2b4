"""The coordinate-wise median (Yin et al., arXiv 1803.01498)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flaretune.aggregation.base import AggregationRule, Arrays, Limited, clip_factors
from flaretune.aggregation.pieces import coordinate_median, distances


class Median(AggregationRule):
    """Puts one median in place of all updates, and of all numbers that belong to them.

    Fewer than half of the clients cannot leave the range of the others in any coordinate, whatever fitness or size
    they claim. The factors are those of `Clipped`: they say who was far from the others.
    """

    name = "median"
    help = "coordinate by coordinate, whatever fitness or size a client claims"

    def limit_updates(self, start: Arrays, updates: Sequence[Arrays]) -> Limited:
        median = coordinate_median(updates)
        factors = clip_factors(distances(start or median, updates), down_to=1)
        return Limited([median] * len(updates), factors)

    def scalars(self, claimed: np.ndarray, limited: np.ndarray) -> np.ndarray:
        return np.full(len(claimed), np.median(claimed))
