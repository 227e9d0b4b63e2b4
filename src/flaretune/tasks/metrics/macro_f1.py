"""The mean over the classes of F1, which weighs rare classes as much as frequent ones."""

from __future__ import annotations

import numpy as np

from flaretune.tasks.metrics.base import HALF, Metric, check_pairs, impossible


class MacroF1(Metric):
    """The mean of each class's 2·tp / (2·tp + fp + fn), over the classes that occur in labels or predictions.

    A class that occurs in neither is left out, as by scikit-learn's ``f1_score(average="macro")`` with its default
    ``labels``. Summed counts are of the labels and predictions of all clients: what counts is whether a class occurs
    at any of them.

    Counts are the true positives of each of C classes, then their false positives, then their false negatives.
    """

    name, title = "macro_f1", "macro-F1"

    def n_counts(self, n_classes: int) -> int:
        return 3 * n_classes

    def count(
        self, predictions: np.ndarray, labels: np.ndarray, positive_class: int | None, n_classes: int
    ) -> np.ndarray:
        predictions, labels = check_pairs(predictions, labels)
        correct, said, is_so = (
            np.bincount(ids.astype(np.int64), minlength=n_classes)
            for ids in (labels[predictions == labels], predictions, labels)
        )
        if max(len(said), len(is_so)) > n_classes:
            raise ValueError(f"class ids must be 0 to {n_classes - 1}")
        return np.concatenate([correct, said - correct, is_so - correct]).astype(np.int64)

    def value(self, counts: np.ndarray) -> float | None:
        true_positives, false_positives, false_negatives = np.reshape(counts, (3, -1)).astype(np.float64)  # (C,) each
        denominators = 2 * true_positives + false_positives + false_negatives
        occurs = denominators > 0
        return float(np.mean(2 * true_positives[occurs] / denominators[occurs])) if occurs.any() else None

    def standard_error(self, counts: np.ndarray) -> float:
        """By the delta method, as of F1 for each class; at most √2 too large.

        A wrong prediction counts in two classes, and which two is not among the counts: (a + b)² ≤ 2a² + 2b².
        """
        true_positives, false_positives, false_negatives = np.reshape(counts, (3, -1)).astype(np.float64)  # (C,) each
        others = false_positives + false_negatives
        occurs = true_positives + others > 0
        t, w = true_positives[occurs] + HALF, others[occurs] + HALF
        return float(2 * np.sqrt(np.sum(t * w * (w + 2 * t) / (2 * t + w) ** 4)) / len(t))

    def check_possible(self, counts: np.ndarray, n_examples: int | None = None) -> None:
        true_positives, false_positives, false_negatives = np.reshape(counts, (3, -1))
        wrong, missed, correct = (sum(map(int, c)) for c in (false_positives, false_negatives, true_positives))
        # a wrong prediction is false of the class predicted and missed by another one, that of the label
        if wrong != missed or np.any(false_positives + false_negatives > wrong):
            raise impossible(counts)
        if n_examples not in (None, correct + wrong):
            raise impossible(counts, n_examples)
