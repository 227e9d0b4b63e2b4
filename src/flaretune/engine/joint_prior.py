"""The prior that a model has over the texts of all clients."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from flaretune.aggregation.base import FACTOR, AggregationRule
from flaretune.aggregation.pieces import coordinate_median
from flaretune.tasks import calibration
from flaretune.tasks.calibration import LogProbSums

log = logging.getLogger("flaretune.server")

# Clients of one class each honestly differ by some nats. In LP-FL's demo with Dirichlet 0.5, 1 cost two of three seeds
# accuracy, 2 none.
HONEST = 2.0


def joint_prior(
    clients: Mapping[str, LogProbSums | None], rule: AggregationRule
) -> tuple[np.ndarray | None, list[str]]:
    """The prior of what clients tell of their texts, and which of them the rule held to the others.

    The rule sees a client's mean log-probabilities, less their mean over the classes, and `HONEST` in a direction of
    its own, so that clients which differ by less are not held to each other.

    Args:
        clients: each one's sums; None of one that tells none.
        rule: the job's.

    Returns:
        float64 (C,), None if no client tells; and names.
    """
    told = {name: sums for name, sums in clients.items() if sums is not None}
    if not told:
        return None, []
    means = [sums.sums / sums.n_texts for sums in told.values()]
    updates = [{"log_probs": mean - mean.mean(), "honest": np.array([HONEST])} for mean in means]
    start = {**coordinate_median(updates), "honest": np.zeros(1)}
    limited = rule.limit_updates(start, updates)
    n_texts = [sums.n_texts for sums in told.values()]
    sizes = rule.limit_sizes(np.array(n_texts, dtype=np.float64), down_to=FACTOR)
    held = [LogProbSums(n * update["log_probs"], n) for n, update in zip(n_texts, limited.updates, strict=True)]
    prior = calibration.prior(held, sizes)
    log.info("the model's prior over the classes: %s", ", ".join(f"{p:.3f}" for p in prior))
    far = (limited.factors < 1) | (sizes < 1)
    return prior, [name for name, is_far in zip(told, far, strict=True) if is_far]
