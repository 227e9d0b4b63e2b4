"""The share of correct predictions."""

from __future__ import annotations

import math

import numpy as np

from flaretune.tasks.metrics.base import HALF, Metric, check_pairs, impossible


class Accuracy(Metric):
    """Counts are [correct predictions, examples]."""

    name = title = "accuracy"

    def n_counts(self, n_classes: int) -> int:
        return 2

    def count(
        self, predictions: np.ndarray, labels: np.ndarray, positive_class: int | None, n_classes: int
    ) -> np.ndarray:
        predictions, labels = check_pairs(predictions, labels)
        return np.array([np.sum(predictions == labels), labels.size], dtype=np.int64)

    def value(self, counts: np.ndarray) -> float | None:
        correct, total = np.asarray(counts).tolist()
        return correct / total if total else None

    def standard_error(self, counts: np.ndarray) -> float:
        """√(p (1 − p) / n)."""
        correct, total = np.asarray(counts).tolist()
        well, wrong = correct + HALF, total - correct + HALF
        return math.sqrt(well * wrong / (well + wrong) ** 3)

    def check_possible(self, counts: np.ndarray, n_examples: int | None = None) -> None:
        correct, total = (int(c) for c in counts)
        if correct > total:
            raise ValueError(f"{correct} correct predictions of {total} cannot be")
        if n_examples not in (None, total):
            raise impossible(counts, n_examples)
