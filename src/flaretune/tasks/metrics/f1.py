"""F1 of one class."""

from __future__ import annotations

import math

import numpy as np

from flaretune.errors import UserError
from flaretune.tasks.metrics.base import HALF, Metric, check_pairs, impossible


class F1(Metric):
    """F1 = 2·tp / (2·tp + fp + fn) of the positive class.

    Counts are [true positives, false positives, false negatives]. They do not tell no examples from examples of other
    classes alone, predicted as such: the value of both is None.
    """

    name, title = "f1", "F1"
    needs_positive_class = True

    def n_counts(self, n_classes: int) -> int:
        return 3

    def count(
        self, predictions: np.ndarray, labels: np.ndarray, positive_class: int | None, n_classes: int
    ) -> np.ndarray:
        predictions, labels = check_pairs(predictions, labels)
        if positive_class is None:
            raise UserError(f"metric {self.name!r} needs a positive class; give its class id")
        said, is_so = predictions == positive_class, labels == positive_class
        return np.array([np.sum(said & is_so), np.sum(said & ~is_so), np.sum(~said & is_so)], dtype=np.int64)

    def value(self, counts: np.ndarray) -> float | None:
        true_positives, false_positives, false_negatives = np.asarray(counts).tolist()
        denominator = 2 * true_positives + false_positives + false_negatives
        return 2 * true_positives / denominator if denominator else None

    def standard_error(self, counts: np.ndarray) -> float:
        """By the delta method: with t true positives and w others, F1 = 2t / D where D = 2t + w, its variance is
        t (2w / D²)² + w (2t / D²)².
        """
        true_positives, false_positives, false_negatives = np.asarray(counts).tolist()
        t, w = true_positives + HALF, false_positives + false_negatives + HALF
        return 2 * math.sqrt(t * w * (t + w)) / (2 * t + w) ** 2

    def check_possible(self, counts: np.ndarray, n_examples: int | None = None) -> None:
        if n_examples is not None and int(counts.sum()) > n_examples:
            raise impossible(counts, n_examples)
