"""One noised release of sums, in place of all that a client would send of its texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from flaretune.privacy.release import Releases

LONGEST = 1.0  # of a text's features, in units of their number's square root: one nat a word on average


def clipped(features: np.ndarray) -> np.ndarray:
    """Features, float64 (N, F), of length 1 at most: divided by `LONGEST` √F, and shortened where longer."""
    features = features / (LONGEST * np.sqrt(max(features.shape[1], 1)))
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1.0)


def release_sums(releases: Releases, arrays: dict[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """Gram sums (`statistics.GramSums.arrays`) with noise, and without the numbers of texts.

    They are divided by the most texts that a client can have before they are shortened to --dp_clip and noised, so that
    the options alone say how large the noise is (`deviation`).
    """
    sums = {name: arrays[name] / most for name in ("cross", "gram")}
    noised = releases.release({name: np.zeros_like(values) for name, values in sums.items()}, sums)
    return {"counts": np.zeros_like(arrays["counts"]), **{name: values * most for name, values in noised.items()}}


def deviation(dp_noise: float, dp_clip: float, most: int) -> float:
    """Standard deviation of the noise on each number of a client's sums."""
    return dp_noise * 2 * dp_clip * most
