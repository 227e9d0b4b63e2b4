"""Federated averaging (McMahan et al., arXiv 1602.05629) under an aggregation rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flaretune.aggregation.base import AggregationRule, Arrays, weighted_mean
from flaretune.aggregation.limits import FACTOR


def federated_average(
    rule: AggregationRule, start: Arrays, updates: Sequence[Arrays], sizes: Sequence[float]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The arrays that a round ends with: limited updates, weighted by limited sizes.

    Args:
        rule: how clients are held to each other.
        start: what they started from, by name; empty where each started from parameters the server does not know.
        updates: what each of M clients has made of it, float32.
        sizes: the numbers of texts that they were made with, shape (M,).

    Returns:
        The arrays, float32; and which clients were far above the others, bool, shape (M,).
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    limited = rule.limit_updates(start, updates)
    size_factors = rule.limit_sizes(sizes, down_to=FACTOR)
    average = weighted_mean(limited.updates, sizes * size_factors)
    return average, (limited.factors < 1) | (size_factors < 1)
