"""Updates of limited length: norm clipping (Sun et al., arXiv 1911.07963) at a limit that the clients set together."""

from __future__ import annotations

from collections.abc import Sequence

from flaretune.aggregation.base import AggregationRule, Arrays, Limited, clip_factors
from flaretune.aggregation.pieces import coordinate_median, distances, shortened


class Clipped(AggregationRule):
    """Shortens updates longer than `FACTOR` times the lower median of all to that median.

    An update is the difference to the start of the round, its length the Euclidean one over all arrays. Those within
    the limit stay as they are, to the bit: without liars, nothing changes.

    In a mean weighted by sizes that are limited down to FACTOR medians, beside M − 1 ≥ 2 honest clients of the same
    size and length one moves the result by FACTOR² / (M + FACTOR − 1) of these lengths at the most, and by
    FACTOR / (M + FACTOR − 1) if it was shortened (M = 10: 0.36 and 0.18).
    """

    name = "clipped"
    help = "as published, after clients beyond twice the lower median of all are held to that median"

    def limit_updates(self, start: Arrays, updates: Sequence[Arrays]) -> Limited:
        start = start or coordinate_median(updates)
        factors = clip_factors(distances(start, updates), down_to=1)
        clipped = [
            shortened(start, update, factor) if factor < 1 else update
            for update, factor in zip(updates, factors, strict=True)
        ]
        return Limited(clipped, factors)
