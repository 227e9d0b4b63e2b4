"""How far one site may be from the others: what both methods' servers bound a site's answer by.

A site can lie in everything it sends. What it cannot choose is what most of the others send; so lengths and sizes are
compared with their lower median, which lies among the honest sites' as long as fewer than half of the sites lie.
"""

from __future__ import annotations

import numpy as np

# mean: as published. clipped: as published, after each site is held to the others. median: coordinate by coordinate,
# whatever a site claims of its fitness or the number of its texts.
AGGREGATIONS = ("mean", "clipped", "median")
# Honest sites of the demo are at most 1.32 times as far from the start of a round as their lower median.
FACTOR = 2.0


def shrinkage(sizes: np.ndarray, down_to: float) -> np.ndarray:
    """What each size is to be multiplied by, so that none is far above the others.

    Args:
        sizes: not negative, float, shape (M,).
        down_to: those above `FACTOR` times the lower median of all that are above zero shall become this many times
            that median, at most `FACTOR`.

    Returns:
        float64, shape (M,); exactly 1 for those that are not above.
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    positive = np.sort(sizes[sizes > 0])
    if not len(positive):
        return np.ones(len(sizes))
    median = positive[(len(positive) - 1) // 2]
    return np.where(sizes > FACTOR * median, down_to * median / np.where(sizes > 0, sizes, 1.0), 1.0)
