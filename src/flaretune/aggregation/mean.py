"""Updates as they came, as in FedAvg (McMahan et al., arXiv 1602.05629)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flaretune.aggregation.base import AggregationRule, Arrays, Limited


class Mean(AggregationRule):
    """Limits nothing: one client that lies can move the result wherever it wants."""

    name = "mean"
    help = "as published, whatever a client sends"

    def limit_updates(self, start: Arrays, updates: Sequence[Arrays]) -> Limited:
        return Limited(list(updates), np.ones(len(updates)))

    def limit_sizes(self, sizes: np.ndarray, down_to: float) -> np.ndarray:
        return np.ones(len(sizes))
