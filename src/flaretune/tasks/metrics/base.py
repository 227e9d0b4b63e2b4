"""What a metric is: counts, so that the counts of several clients or batches add up to the metric of all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np

# Added, by `standard_error`, to what went well and to what did not, as Jeffreys' prior does: that 12 of 12 predictions
# are correct leaves a doubt too.
HALF = 0.5


class Estimate(NamedTuple):
    """A metric on some examples, and its standard error; None for both where it has no value."""

    value: float | None
    standard_error: float | None


class Metric(ABC):
    """A way to judge predicted classes; one object of it serves every task.

    Attributes:
        name: what task files and summaries call it.
        title: what people read.
        needs_positive_class: whether it is about one class, which the task must then name.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs_positive_class: ClassVar[bool] = False

    @abstractmethod
    def n_counts(self, n_classes: int) -> int:
        """How many numbers `count` gives for a task of so many classes."""

    @abstractmethod
    def count(
        self, predictions: np.ndarray, labels: np.ndarray, positive_class: int | None, n_classes: int
    ) -> np.ndarray:
        """Count what the metric is computed from.

        Args:
            predictions: class ids, int, shape (N,).
            labels: class ids, int, shape (N,).
            positive_class: the class that it is about; None for a metric that needs none.
            n_classes: C; ids are 0 … C−1.

        Returns:
            int64, shape (n_counts(C),).

        Raises:
            ValueError: predictions and labels of different shapes.
            UserError: the metric needs a positive class, and there is none.
        """

    @abstractmethod
    def value(self, counts: np.ndarray) -> float | None:
        """The metric, in [0, 1], from summed counts; None where they are of no examples that it is about.

        Counts may be fractions, of a client that counts for fewer examples than it has.
        """

    @abstractmethod
    def standard_error(self, counts: np.ndarray) -> float:
        """The standard error of `value` over examples drawn independently, with `HALF` added to the counts."""

    def estimate(self, counts: np.ndarray) -> Estimate:
        """The metric from summed counts, with its standard error."""
        value = self.value(counts)
        return Estimate(value, None if value is None else self.standard_error(counts))

    @abstractmethod
    def check_possible(self, counts: np.ndarray, n_examples: int | None = None) -> None:
        """Check that counts can be.

        Args:
            counts: int64, not negative, shape (n_counts(C),).
            n_examples: how many examples they are of; None if that is not known.

        Raises:
            ValueError: no predictions have such counts.
        """


def check_pairs(predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays.

    Raises:
        ValueError: they are not vectors of one length.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or labels.ndim != 1:
        raise ValueError(f"predictions {predictions.shape} and labels {labels.shape} must both be (N,)")
    return predictions, labels


def impossible(counts: np.ndarray, n_examples: int | None = None) -> ValueError:
    """The error for counts that cannot be."""
    examples = "" if n_examples is None else f" of {n_examples} examples"
    return ValueError(f"counts {np.asarray(counts).tolist()[:12]}{examples} cannot be")
