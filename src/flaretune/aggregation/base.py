"""What an aggregation rule is: how far one client may pull what the server makes of all of them.

A client can lie in everything it sends. What it cannot choose is what most of the others send; so distances and sizes
are compared with their lower median, which lies among the honest clients' as long as fewer than half of them lie.

A rule sees updates as arrays by name, and knows neither a method nor a transport. What is done with the limited updates
is the method's business: LP-FL averages them (`federated_average`), FedBPT recombines them by rank.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

Arrays = Mapping[str, np.ndarray]
# Honest clients of the demo are at most 1.32 times as far from the start of a round as their lower median.
FACTOR = 2.0


@dataclass(frozen=True, eq=False)
class Limited:
    """Updates of M clients as they are to be combined.

    Attributes:
        updates: arrays by name, of each client.
        factors: what each update's distance from the start is multiplied by to be within the limit, float64, shape
            (M,); exactly 1 for those that are within it.
    """

    updates: list[Arrays]
    factors: np.ndarray


class AggregationRule(ABC):
    """One way to hold clients to each other; one object of it serves every job.

    Attributes:
        name: what it is called in options.
        help: what it does, for people, a few words.
    """

    name: ClassVar[str]
    help: ClassVar[str]

    @abstractmethod
    def limit_updates(self, start: Arrays, updates: Sequence[Arrays]) -> Limited:
        """Hold updates to each other.

        Args:
            start: what the clients started from, by name; empty where the server does not know it, for which the
                coordinate-wise median of the updates then stands.
            updates: what each of M clients has made of it, of the same names, shapes and dtypes, finite. They are
                left as they are.
        """

    def limit_sizes(self, sizes: np.ndarray, down_to: float) -> np.ndarray:
        """What sizes that clients claim (numbers of texts, say) are to be multiplied by; see `clip_factors`.

        Args:
            sizes: not negative, shape (M,).
            down_to: how many lower medians those that are too large become.

        Returns:
            float64, shape (M,); exactly 1 within the limit.
        """
        return clip_factors(sizes, down_to)

    def scalars(self, claimed: np.ndarray, limited: np.ndarray) -> np.ndarray:
        """Numbers that belong to the updates (a fitness, say), as they are to be used.

        Args:
            claimed: as the clients sent them, shape (M,).
            limited: the same with those of clients beyond a limit replaced, shape (M,).
        """
        return limited


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
    return np.where(sizes > FACTOR * median, down_to * median / np.maximum(sizes, median), 1.0)


def federated_average(
    rule: AggregationRule, start: Arrays, updates: Sequence[Arrays], sizes: Sequence[float]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Federated averaging (McMahan et al., arXiv 1602.05629) of limited updates, weighted by limited sizes.

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


def weighted_mean(updates: Sequence[Arrays], weights: Sequence[float]) -> dict[str, np.ndarray]:
    """The mean of M updates, weighted and added in their order, so that equal inputs give equal bits.

    Args:
        updates: float32 arrays by name. If all are one and the same object, it is returned as it is.
        weights: not negative, not all zero, shape (M,).

    Returns:
        float32; to the bit what NVFlare's `WeightedAggregationHelper` gives with the same shares.
    """
    if all(update is updates[0] for update in updates):
        return dict(updates[0])
    weights = [float(weight) for weight in weights]
    total = sum(weights)
    # shares, not weights: float32 times a number of texts may be more than float32 holds. Python's floats, as NumPy's
    # would make the arrays float64
    shares = [weight / total for weight in weights]
    sum_of_shares = shares[0]
    for share in shares[1:]:
        sum_of_shares += share
    mean = {}
    for name in updates[0]:
        values = updates[0][name] * shares[0]
        for update, share in zip(updates[1:], shares[1:], strict=True):
            values = values + update[name] * share
        mean[name] = np.asarray(values * (1.0 / sum_of_shares), dtype=np.float32)
    return mean
