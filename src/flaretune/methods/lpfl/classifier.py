"""What LP-FL has trained, ready to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaretune.data.load import Examples
from flaretune.errors import UserError
from flaretune.methods.classifier import check_model, prior_of, settings_of_result, softmax
from flaretune.methods.lpfl.artifact import load_adapter
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.models.progress import Progress, in_silence
from flaretune.models.tuned import TunedModel, TuneSettings, open_tuned_model
from flaretune.tasks.spec import Kind, TaskSpec


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
    # how a client saves memory and where it has unlabelled texts is not in the folder, and of no use here
    options = {**artifact.options, "gradient_checkpointing": 0, "soft_labels": "off"}
    settings = settings_of_result(LPFLConfig, TuneSettings, options, folder)
    name = model_name or artifact.model["name"]
    try:
        tuned = open_tuned_model(artifact.spec, name, settings, dtype=dtype, device=device)
    except UserError as error:  # may be about an option that only the folder holds
        raise UserError(f"{folder}: {error}") from error
    check_model(name, tuned.pretrained.kind, tuned.hidden_size, artifact.model, "adapter")
    untrained = tuned.initial or tuned.parameters.arrays()
    _check_arrays(name, untrained, artifact.arrays, folder)
    tuned.parameters.load(artifact.arrays)
    prior = prior_of(artifact, folder)
    tuned.label_model.calibrate(prior)
    return TunedClassifier(tuned, untrained, prior)


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
