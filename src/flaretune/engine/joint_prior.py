"""The prior that a model has over the texts of all clients."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from flaretune.aggregation.base import FACTOR, AggregationRule
from flaretune.tasks import calibration

log = logging.getLogger("flaretune.server")


def joint_prior(clients: Sequence[calibration.LogProbSums | None], rule: AggregationRule) -> np.ndarray | None:
    """The prior, float64 (C,), of what the clients tell of their texts; None if none of them tells.

    Args:
        clients: a client's sums each; None of one without.
        rule: the job's, which limits by how many texts a client counts.
    """
    told = [sums for sums in clients if sums is not None]
    if not told:
        return None
    sizes = np.array([sums.n_texts for sums in told], dtype=np.float64)
    prior = calibration.prior(told, rule.limit_sizes(sizes, down_to=FACTOR))
    log.info("the model's prior over the classes: %s", ", ".join(f"{p:.3f}" for p in prior))
    return prior
