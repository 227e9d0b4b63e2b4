"""What every method's result becomes when it is opened with its model: a classifier of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from flaretune.data.load import Examples
from flaretune.models.progress import Progress, in_silence
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
    """

    metric: str
    value: float | None
    n: int
    n_by_class: tuple[int, ...]
    correct_by_class: tuple[int, ...]


class Classifier(Protocol):
    """A model with what a job has found for it.

    In bfloat16 the logits depend a little on what else is in a batch (differences between two of them by 0.04 on a
    270M-parameter model), so that of some hundred texts one or two may be labelled otherwise than at a client.
    """

    @property
    def spec(self) -> TaskSpec:
        """The task that it answers for."""

    @property
    def kind(self) -> Kind:
        """Of the model."""

    def probabilities(self, texts: Sequence[Mapping[str, str]], progress: Progress = in_silence) -> np.ndarray:
        """How probable each class is, among the label words, for each text.

        Args:
            texts: N times text column → text.
            progress: gets the batches to go through, and their unit.

        Returns:
            float64, shape (N, C); rows sum to 1.

        Raises:
            UserError: a text column is missing.
        """

    def zero_shot(self, examples: Examples) -> np.ndarray:
        """The same of the model and the template alone, as they were before the job."""


def score(spec: TaskSpec, probabilities: np.ndarray, labels: np.ndarray) -> Score:
    """Compare probabilities, float (N, C), with class ids, int (N,)."""
    predictions = probabilities.argmax(axis=-1)
    metric = find_metric(spec.metric)
    value = metric.value(metric.count(predictions, labels, spec.positive_class, spec.n_classes))
    n_by_class = np.bincount(labels, minlength=spec.n_classes)
    correct = np.bincount(labels[predictions == labels], minlength=spec.n_classes)
    return Score(spec.metric, value, len(labels), tuple(n_by_class.tolist()), tuple(correct.tolist()))
