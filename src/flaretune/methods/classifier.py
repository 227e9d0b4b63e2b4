"""Using what a job has found, a prompt or an adapter: its model opened again, and asked about texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from flaretune.config.options import build
from flaretune.data.load import Examples
from flaretune.errors import UserError
from flaretune.methods.artifact_parts import saved_prior
from flaretune.methods.fedbpt.artifact import PromptArtifact, load_prompt
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.lpfl.artifact import AdapterArtifact, load_adapter
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.models.progress import Progress, in_silence
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import PromptedModel, open_prompted_model
from flaretune.models.tuned import TunedModel, TuneSettings, open_tuned_model
from flaretune.tasks import calibration
from flaretune.tasks.metrics.registry import find_metric
from flaretune.tasks.spec import Kind, TaskSpec

Settings = TypeVar("Settings")


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


@dataclass(frozen=True)
class PromptClassifier:
    """A `Classifier`: a black box, a search point, float32, shape (d,), and what its logits are shifted by, (C,)."""

    prompted: PromptedModel
    point: np.ndarray
    offset: np.ndarray

    @property
    def spec(self) -> TaskSpec:
        return self.prompted.spec

    @property
    def kind(self) -> Kind:
        return self.prompted.pretrained.kind

    def probabilities(self, texts: Sequence[Mapping[str, str]], progress: Progress = in_silence) -> np.ndarray:
        if not texts:
            return np.empty((0, self.spec.n_classes))
        encoded = [self.prompted.encoder.encode(columns) for columns in texts]
        registered = self.prompted.black_box.register(encoded, reuse=False)
        return softmax(self.prompted.black_box.label_logits(self.point[None], registered, progress)[0] + self.offset)

    def zero_shot(self, examples: Examples) -> np.ndarray:
        return softmax(self.prompted.zero_shot_logits(examples))


@dataclass(frozen=True)
class TunedClassifier:
    """A `Classifier`: a tuned model with the trained parameters in it; `untrained` are those it had before.

    `prior`, float64 (C,), is what its answers are divided by, but those of the model alone.
    """

    tuned: TunedModel
    untrained: Mapping[str, np.ndarray]
    prior: np.ndarray

    @property
    def spec(self) -> TaskSpec:
        return self.tuned.label_model.spec

    @property
    def kind(self) -> Kind:
        return self.tuned.pretrained.kind

    def probabilities(self, texts: Sequence[Mapping[str, str]], progress: Progress = in_silence) -> np.ndarray:
        model = self.tuned.label_model
        return softmax(model.answers(model.encode(texts), progress))

    def zero_shot(self, examples: Examples) -> np.ndarray:
        parameters = self.tuned.parameters
        trained = parameters.arrays()
        # a frozen A, which is not among them, may stay: before training B is zero, and so is their product
        parameters.load({name: self.untrained[name] for name in trained})
        self.tuned.label_model.calibrate(None)
        try:
            return self.probabilities(examples.texts)
        finally:
            parameters.load(trained)
            self.tuned.label_model.calibrate(self.prior)


def open_prompt(
    path: str | Path, model_name: str | None = None, dtype: str = "auto", device: str = "auto"
) -> PromptClassifier:
    """Open a prompt file with its model, task and settings.

    Args:
        path: the file.
        model_name: hub id or folder of the model it was found with; default what the file says, which is the
            place at the site that reported it.
        dtype: see the option ``--dtype``. Sites choose theirs, so the file holds none.
        device: see the option ``--device``.

    Raises:
        UserError: the file is no prompt, or the model cannot be loaded or is not the one it was found with.
    """
    artifact = load_prompt(path)
    settings = _settings(FedBPTConfig, PromptSettings, artifact.options, path)
    name = model_name or artifact.model["name"]
    prompted = open_prompted_model(artifact.spec, name, settings, dtype=dtype, device=device)
    _check_model(name, prompted.pretrained.kind, prompted.black_box.hidden_size, artifact.model, "prompt")
    return PromptClassifier(prompted, artifact.point, calibration.offset(_prior(artifact, path)))


def open_adapter(
    folder: str | Path, model_name: str | None = None, dtype: str = "auto", device: str = "auto"
) -> TunedClassifier:
    """Open an adapter folder, or that of a model whose every parameter was trained, with its model, task and settings.

    Args:
        folder: the folder.
        model_name, dtype, device: as for `open_prompt`.

    Raises:
        UserError: the folder is no adapter, or the model cannot be loaded or is not the one it was trained on.
    """
    artifact = load_adapter(folder)
    # how a site saves memory and where it has unlabelled texts is not in the folder, and of no use here
    options = {**artifact.options, "gradient_checkpointing": 0, "soft_labels": "off"}
    settings = _settings(LPFLConfig, TuneSettings, options, folder)
    name = model_name or artifact.model["name"]
    try:
        tuned = open_tuned_model(artifact.spec, name, settings, dtype=dtype, device=device)
    except UserError as error:  # may be about an option that only the folder holds
        raise UserError(f"{folder}: {error}") from error
    _check_model(name, tuned.pretrained.kind, tuned.hidden_size, artifact.model, "adapter")
    untrained = tuned.initial or tuned.parameters.arrays()
    _check_arrays(name, untrained, artifact.arrays, folder)
    tuned.parameters.load(artifact.arrays)
    prior = _prior(artifact, folder)
    tuned.label_model.calibrate(prior)
    return TunedClassifier(tuned, untrained, prior)


def _prior(artifact: PromptArtifact | AdapterArtifact, place: str | Path) -> np.ndarray:
    """What a saved result's answers are to be divided by, float64 (C,)."""
    n_classes = artifact.spec.n_classes
    try:
        saved = saved_prior(artifact.result, n_classes)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    return np.ones(n_classes) if saved is None else saved


def _settings(config: type, settings: type[Settings], options: Mapping[str, Any], place: str | Path) -> Settings:
    """Those of a saved result's options that its model is opened with, after all have been checked."""
    try:
        build(config, options)
        return build(settings, options)
    except TypeError as error:
        raise UserError(f"{place} was written by another version of flaretune ({error}); use that one") from error


def _check_model(name: str, kind: Kind, hidden_size: int, wanted: Mapping[str, Any], what: str) -> None:
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


def _check_arrays(
    name: str, there: Mapping[str, np.ndarray], saved: Mapping[str, np.ndarray], folder: str | Path
) -> None:
    """Whether a model has just the parameters that were saved.

    Raises:
        UserError: names the first that differs.
    """
    for parameter in sorted({*there, *saved}):
        mine, theirs = (
            f"of shape {arrays[parameter].shape}" if parameter in arrays else "absent" for arrays in (there, saved)
        )
        if mine != theirs:
            raise UserError(
                f"--model_name {name}: {parameter} is {mine} in this model and {theirs} in {folder}; give the model "
                "that it was trained on"
            )


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
