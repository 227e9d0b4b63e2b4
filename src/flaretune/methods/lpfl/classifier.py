"""A saved adapter, or a model whose every parameter was trained, to classify texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaretune.data.load import Examples
from flaretune.errors import UserError
from flaretune.methods.artifact_parts import build_settings, check_opened, prior_of
from flaretune.methods.classifier import Classifier
from flaretune.methods.lpfl.artifact import AdapterArtifact
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.models.lora import TuneSettings
from flaretune.models.progress import Progress
from flaretune.models.tuned import TunedModel, open_tuned_model


@dataclass(frozen=True)
class TunedClassifier(Classifier):
    """A tuned model with the trained parameters in it; `untrained` are those it had before.

    `prior`, float64 (C,), is what its probabilities are divided by, but those of the model alone.
    """

    tuned: TunedModel
    untrained: Mapping[str, np.ndarray]
    prior: np.ndarray

    def _logits(self, texts: Sequence[Mapping[str, str]], progress: Progress) -> np.ndarray:
        model = self.tuned.label_model
        return model.predict_logits(model.encode(texts), progress)

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


def open_saved(artifact: AdapterArtifact, folder: Path, model_name: str, dtype: str, device: str) -> TunedClassifier:
    """Load the model of an adapter; see `Method.open`."""
    # how a client saves memory and where it has unlabelled texts is not in the folder, and of no use here; before there
    # was a first layer, adapters were in all
    options = {"first_layer": "0", **artifact.options, "gradient_checkpointing": 0, "soft_labels": "off"}
    settings = build_settings(LPFLConfig, TuneSettings, options, folder)
    try:
        place = {"dtype": dtype, "device": device, "quantize": artifact.quantize}
        tuned = open_tuned_model(artifact.spec, model_name, settings, **place)
    except UserError as error:  # may be about an option that only the folder holds
        raise UserError(f"{folder}: {error}") from error
    check_opened(model_name, tuned.pretrained.kind, tuned.hidden_size, artifact.model, "adapter")
    untrained = tuned.initial or tuned.parameters.arrays()
    _check_arrays(model_name, untrained, artifact.arrays, folder)
    tuned.parameters.load(artifact.arrays)
    prior = prior_of(artifact.result, artifact.spec.n_classes, folder)
    tuned.label_model.calibrate(prior)
    return TunedClassifier(artifact.spec, tuned.pretrained.kind, tuned, untrained, prior)


def _check_arrays(name: str, there: Mapping[str, np.ndarray], saved: Mapping[str, np.ndarray], folder: Path) -> None:
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
