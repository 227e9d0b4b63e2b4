"""How far one site may be from the others: what both methods' servers bound a site's answer by.

A site can lie in everything it sends. What it cannot choose is what most of the others send; so lengths and sizes are
held to a multiple of their lower median, which lies among the honest sites' as long as fewer than half of the sites
lie.
"""

from __future__ import annotations

import numpy as np

# plain: as published. clipped: as published, after each site is held to FACTOR times the others. median: coordinate by
# coordinate, whatever a site claims of its fitness or the number of its texts.
AGGREGATIONS = ("plain", "clipped", "median")
# Honest sites of the demo are at most 1.32 times as far from the start of a round as their lower median.
FACTOR = 2.0


def limit_of(sizes: np.ndarray) -> float:
    """What a size may be at most: `FACTOR` times the lower median of those above zero.

    Args:
        sizes: not negative, float, shape (M,).
    """
    positive = np.sort(np.asarray(sizes, dtype=np.float64)[np.asarray(sizes) > 0])
    return FACTOR * float(positive[(len(positive) - 1) // 2]) if len(positive) else 0.0


def shrinkage(sizes: np.ndarray) -> np.ndarray:
    """What each size, float (M,), is to be multiplied by; exactly 1 for those within the limit of `limit_of`."""
    sizes = np.asarray(sizes, dtype=np.float64)
    limit = limit_of(sizes)
    return np.where(sizes > limit, limit / np.where(sizes > 0, sizes, 1.0), 1.0)
