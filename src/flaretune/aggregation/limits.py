"""How far one client may be from the others.

A client can lie in everything it sends. What it cannot choose is what most of the others send; so distances and sizes
are compared with their lower median, which lies among the honest clients' as long as fewer than half of them lie.
"""

from __future__ import annotations

import numpy as np

# Honest clients of the demo are at most 1.32 times as far from the start of a round as their lower median.
FACTOR = 2.0


def clip_factors(sizes: np.ndarray, down_to: float) -> np.ndarray:
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
