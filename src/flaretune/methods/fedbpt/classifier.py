"""A saved prompt with its model, to classify texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaretune.data.load import Examples
from flaretune.methods.artifact_parts import build_settings, check_opened, prior_of
from flaretune.methods.fedbpt.artifact import PromptArtifact
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.models.progress import Progress, in_silence
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import PromptedModel, open_prompted_model
from flaretune.softmax import softmax
from flaretune.tasks import calibration
from flaretune.tasks.spec import Kind, TaskSpec


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


def open_saved(artifact: PromptArtifact, path: Path, model_name: str, dtype: str, device: str) -> PromptClassifier:
    """Load the model of a prompt; see `methods.classifier.Saved.open`."""
    settings = build_settings(FedBPTConfig, PromptSettings, artifact.options, path)
    prompted = open_prompted_model(artifact.spec, model_name, settings, dtype=dtype, device=device)
    check_opened(model_name, prompted.pretrained.kind, prompted.black_box.hidden_size, artifact.model, "prompt")
    prior = prior_of(artifact.result, artifact.spec.n_classes, path)
    return PromptClassifier(prompted, artifact.point, calibration.offset(prior))
