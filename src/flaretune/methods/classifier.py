"""What every method's result becomes when it is opened with its model: a classifier of texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flaretune.data.load import Examples
from flaretune.models.progress import Progress, in_silence
from flaretune.softmax import softmax
from flaretune.tasks.metrics.registry import find_metric
from flaretune.tasks.spec import Kind, TaskSpec


@dataclass(frozen=True)
class Score:
    """How well predictions agree with labels.

    Attributes:
        metric: the task's, by its name.
        value: of the metric, in [0, 1]; None where it has none, as F1 of a class that neither occurs nor is predicted.
        n: number of texts.
        n_by_class, correct_by_class: texts of each class, and those of them that were predicted right.
        standard_error: of the metric; None where it has no value.
        confusion: texts by class and, within it, by predicted class.
        reliability: predictions by the probability of the predicted class, in tenths: "from", "to", how many ("n"),
            their mean probability ("confidence") and the share of correct ones ("correct"); without those of none.
    """

    metric: str
    value: float | None
    n: int
    n_by_class: tuple[int, ...]
    correct_by_class: tuple[int, ...]
    standard_error: float | None
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class Classifier(ABC):
    """A model with what a job has found for it.

    In bfloat16 the logits depend a little on what else is in a batch (differences between two of them by 0.04 on a
    270M-parameter model), so that of some hundred texts one or two may be labelled otherwise than at a client.

    Attributes:
        spec: the task that it answers for.
        kind: of the model.
    """

    spec: TaskSpec
    kind: Kind

    def probabilities(self, texts: Sequence[Mapping[str, str]], progress: Progress = in_silence) -> np.ndarray:
        """How probable each class is, among the label words, for each text.

        Args:
            texts: N times text column → text.
            progress: gets the batches to go through, and their unit.

        Returns:
            float64, shape (N, C); rows sum to 1.

        Raises:
            UserError: a text column is missing.
            FloatingPointError: the model's numbers are not finite.
        """
        return softmax(self._logits(texts, progress)) if len(texts) else np.empty((0, self.spec.n_classes))

    @abstractmethod
    def _logits(self, texts: Sequence[Mapping[str, str]], progress: Progress) -> np.ndarray:
        """Scores of the classes for at least one text, float (N, C)."""

    @abstractmethod
    def zero_shot(self, examples: Examples) -> np.ndarray:
        """The same of the model and the template alone, as they were before the job.

        Raises:
            UserError: the task has no label words.
        """


def score(spec: TaskSpec, probabilities: np.ndarray, labels: np.ndarray) -> Score:
    """Compare probabilities, float (N, C), with class ids, int (N,)."""
    predictions = probabilities.argmax(axis=-1)
    metric = find_metric(spec.metric)
    value, error = metric.estimate(metric.count(predictions, labels, spec.positive_class, spec.n_classes))
    shape = (spec.n_classes, spec.n_classes)
    confusion = np.bincount(labels * spec.n_classes + predictions, minlength=spec.n_classes**2).reshape(shape)
    return Score(
        metric=spec.metric,
        value=value,
        n=len(labels),
        n_by_class=tuple(confusion.sum(axis=1).tolist()),
        correct_by_class=tuple(confusion.diagonal().tolist()),
        standard_error=error,
        confusion=tuple(map(tuple, confusion.tolist())),
        reliability=_reliability(probabilities.max(axis=-1), predictions == labels),
    )


def _reliability(confidence: np.ndarray, correct: np.ndarray) -> tuple[dict[str, float], ...]:
    """`Score.reliability` of predictions, float (N,) and bool (N,)."""
    tenths = np.minimum((confidence * 10).astype(np.int64), 9)  # a probability of 1 is among those from 0.9 on
    found = []
    for tenth in np.unique(tenths).tolist():
        inside = tenths == tenth
        mean, share = float(confidence[inside].mean()), float(correct[inside].mean())
        edges = {"from": tenth / 10, "to": (tenth + 1) / 10}
        found.append({**edges, "n": int(inside.sum()), "confidence": mean, "correct": share})
    return tuple(found)
