"""What every method's result becomes when it is opened: a classifier of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from flaretune.config.client import ClientConfig
from flaretune.config.options import build
from flaretune.data.load import Examples
from flaretune.errors import UserError
from flaretune.methods.artifact_parts import saved_prior
from flaretune.models.progress import Progress, in_silence
from flaretune.tasks.metrics.registry import find_metric
from flaretune.tasks.spec import Kind, TaskSpec

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Score:
    """How well predictions agree with labels.

    Attributes:
        metric: the task's.
        value: of the metric, in [0, 1].
        n: number of texts.
        n_by_class, correct_by_class: texts of each class, and those of them that were predicted right.
    """

    metric: str
    value: float
    n: int
    n_by_class: tuple[int, ...]
    correct_by_class: tuple[int, ...]


class Classifier(Protocol):
    """A model with what a job has found for it.

    In bfloat16 the logits depend a little on what else is in a batch (differences between two of them by 0.04 on a
    270M-parameter model), so that of some hundred texts one or two may be labelled otherwise than at a site.
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


def softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis, in float64."""
    shifted = np.asarray(logits, dtype=np.float64)
    powers = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def score(spec: TaskSpec, probabilities: np.ndarray, labels: np.ndarray) -> Score:
    """Compare probabilities, float (N, C), with class ids, int (N,)."""
    predictions = probabilities.argmax(axis=-1)
    metric = find_metric(spec.metric)
    value = metric.value(metric.count(predictions, labels, spec.positive_class, spec.n_classes))
    n_by_class = np.bincount(labels, minlength=spec.n_classes)
    correct = np.bincount(labels[predictions == labels], minlength=spec.n_classes)
    return Score(spec.metric, value, len(labels), tuple(n_by_class.tolist()), tuple(correct.tolist()))


def prior_of(artifact: Any, place: str | Path) -> np.ndarray:
    """What the predictions of a saved result (with `spec` and `result`) are divided by, float64 (C,)."""
    n_classes = artifact.spec.n_classes
    try:
        saved = saved_prior(artifact.result, n_classes)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    return np.ones(n_classes) if saved is None else saved


def settings_of_result(config: type[ClientConfig], settings: type[Settings], options: Mapping[str, Any], place: str | Path) -> Settings:
    """Those of a saved result's options that its model is opened with, after all have been checked."""
    try:
        build(config, options)
        return build(settings, options)
    except TypeError as error:
        raise UserError(f"{place} was written by another version of flaretune ({error}); use that one") from error


def check_model(name: str, kind: Kind, hidden_size: int, wanted: Mapping[str, Any], what: str) -> None:
    """Whether a model is of the kind and size that a prompt or an adapter was found with.

    Raises:
        UserError: says what differs.
    """
    for key, value in {"kind": kind, "hidden_size": hidden_size}.items():
        if value != wanted[key]:
            raise UserError(
                f"--model_name {name}: its {key.replace('_', ' ')} is {value}, but the {what} was found with "
                f"{wanted['name']}, where it is {wanted[key]}; give that model"
            )
