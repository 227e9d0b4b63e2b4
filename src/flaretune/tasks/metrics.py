"""Metrics as counts, so that the counts of several sites or batches add up to the metric of all."""

from __future__ import annotations

import numpy as np

from flaretune.errors import UserError
from flaretune.tasks.checks import METRICS


def count(metric: str, predictions: np.ndarray, labels: np.ndarray, positive_class: int | None = None) -> np.ndarray:
    """Count what a metric is computed from.

    Args:
        metric: "accuracy" or "f1".
        predictions: class ids, shape (N,).
        labels: class ids, shape (N,).
        positive_class: the class whose F1 is meant; required for "f1".

    Returns:
        int64 counts: [correct, total], shape (2,), for accuracy; [true positives, false positives, false
        negatives], shape (3,), for F1.

    Raises:
        UserError: an unknown metric, or "f1" without a positive class.
        ValueError: predictions and labels of different shapes.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or labels.ndim != 1:
        raise ValueError(f"predictions {predictions.shape} and labels {labels.shape} must both be (N,)")
    _check_known(metric)
    if metric == "accuracy":
        return np.array([np.sum(predictions == labels), labels.size], dtype=np.int64)
    if positive_class is None:
        raise UserError("metric 'f1' needs a positive class; give its class id")
    said, is_so = predictions == positive_class, labels == positive_class
    return np.array([np.sum(said & is_so), np.sum(said & ~is_so), np.sum(~said & is_so)], dtype=np.int64)


def check_possible(counts: np.ndarray, n_examples: int | None = None) -> None:
    """Check that counts of some metric can be: those of accuracy are two, of F1 three.

    Args:
        counts: int64, not negative; as from `count`, summed or not.
        n_examples: what they are of; None if that is not known.

    Raises:
        ValueError: more right answers than answers, or another number of examples.
    """
    correct_of_total = len(counts) == 2
    if correct_of_total and counts[0] > counts[1]:
        raise ValueError(f"{counts[0]} right answers of {counts[1]} cannot be")
    total = int(counts[1]) if correct_of_total else int(counts.sum())
    if n_examples is not None and (total != n_examples if correct_of_total else total > n_examples):
        raise ValueError(f"counts {counts.tolist()} of {n_examples} examples cannot be")


def value(metric: str, counts: np.ndarray) -> float:
    """The metric, in [0, 1], from the (summed) counts of ``count``.

    F1 = 2·tp / (2·tp + fp + fn), and 0.0 where the denominator is 0 (no such label, none predicted).

    Raises:
        UserError: an unknown metric, or the accuracy of no examples.
    """
    _check_known(metric)
    if metric == "accuracy":
        correct, total = (int(c) for c in counts)
        if total == 0:
            raise UserError("accuracy of 0 examples is not defined; evaluate at least one example")
        return correct / total
    true_positives, false_positives, false_negatives = (int(c) for c in counts)
    denominator = 2 * true_positives + false_positives + false_negatives
    return 2 * true_positives / denominator if denominator else 0.0


def _check_known(metric: str) -> None:
    if metric not in METRICS:
        raise UserError(f"metric {metric!r} is unknown; it must be one of {', '.join(METRICS)}")
