"""The losses that a prompt is judged by, on the logits of the label words."""

from __future__ import annotations

from typing import Literal

import numpy as np

from flaretune.softmax import log_softmax
from flaretune.tasks.evaluation import HUGE
from flaretune.tasks.metrics.registry import find_metric

LossType = Literal["ce", "hinge", "perf"]
LOSS_TYPES: tuple[LossType, ...] = ("ce", "hinge", "perf")
HINGE_MARGIN = 2.0


# The values that fitness can have: a client that tells of others is mistaken, or lies.
FITNESS_RANGE: dict[LossType, tuple[float, float]] = {"ce": (0.0, HUGE), "hinge": (0.0, HUGE), "perf": (-1.0, 0.0)}


def loss(
    loss_type: LossType,
    logits: np.ndarray,
    labels: np.ndarray,
    metric: str = "accuracy",
    positive_class: int | None = None,
) -> np.ndarray:
    """L(z; T) for each of λ candidates, averaged over the N examples.

    Args:
        loss_type: ``ce`` cross entropy over the label words; ``hinge`` the sum over the wrong classes of
            max(0, margin − (score of the right one − score of the wrong one)), margin 2 (BBT, arXiv
            2201.03514, §3.4); ``perf`` minus the task's metric, 0 where it has no value.
        logits: float, shape (λ, N, C).
        labels: int, shape (N,).
        metric: the task's metric, for ``perf``.
        positive_class: that the metric is about, for ``perf``.

    Returns:
        float64, shape (λ,); lower is better.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if loss_type == "ce":
        return -log_softmax(logits)[:, np.arange(len(labels)), labels].mean(axis=1)
    if loss_type == "hinge":
        right = logits[:, np.arange(len(labels)), labels][..., None]  # (λ, N, 1)
        slack = np.maximum(0.0, HINGE_MARGIN - (right - logits))  # (λ, N, C); margin itself at the right class
        return (slack.sum(axis=-1) - HINGE_MARGIN).mean(axis=1)
    if loss_type == "perf":
        counted, n_classes = find_metric(metric), logits.shape[-1]
        counts = [counted.count(row, labels, positive_class, n_classes) for row in logits.argmax(axis=-1)]
        return np.array([-(counted.value(c) or 0.0) for c in counts])
    raise ValueError(f"loss type {loss_type!r} is unknown: use one of {', '.join(LOSS_TYPES)}")


def fitness_ratio(plain: np.ndarray, perturbed: np.ndarray) -> np.ndarray:
    """F_k(z) = L(z; T_k) / L(z; T̃_k), the fitness with perturbed data (paper, §3.4); shapes (λ,).

    The denominator is kept above 1e-6, so that a hinge loss of zero on the perturbed texts gives a
    large number and not a division by zero.
    """
    return np.asarray(plain) / np.maximum(np.asarray(perturbed), 1e-6)
