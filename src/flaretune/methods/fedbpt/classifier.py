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
from flaretune.methods.fedbpt.learned_model import LearnedModel, open_learned_model
from flaretune.methods.verbalizer.artifact import LearnedHead
from flaretune.methods.verbalizer.classifier import VerbalizerClassifier, check_head
from flaretune.methods.verbalizer.head import Head
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


@dataclass(frozen=True)
class LearnedPromptClassifier:
    """The same with a learned verbalizer."""

    model: LearnedModel
    point: np.ndarray
    head: Head

    @property
    def spec(self) -> TaskSpec:
        return self.model.words.spec

    @property
    def kind(self) -> Kind:
        return self.model.words.kind

    def probabilities(self, texts: Sequence[Mapping[str, str]], progress: Progress = in_silence) -> np.ndarray:
        if not texts:
            return np.empty((0, self.spec.n_classes))
        data = self.model.texts(texts, np.zeros(len(texts), dtype=np.int64), reuse=False)
        _, features = self.model.features(np.unique(self.head.words[:, 1]))
        return softmax(self.head.logits(features(self.point[None], data, self.head.words)[0]))

    def zero_shot(self, examples: Examples) -> np.ndarray:
        return VerbalizerClassifier(self.model.words, self.head).zero_shot(examples)


def open_saved(
    artifact: PromptArtifact, path: Path, model_name: str, dtype: str, device: str
) -> PromptClassifier | LearnedPromptClassifier:
    """Load the model of a prompt; see `methods.classifier.Saved.open`."""
    settings = build_settings(FedBPTConfig, PromptSettings, artifact.options, path)
    if artifact.learned:
        return _open_learned(artifact, artifact.learned, path, model_name, settings, dtype, device)
    prompted = open_prompted_model(
        artifact.spec, model_name, settings, dtype=dtype, device=device, quantize=artifact.quantize
    )
    check_opened(model_name, prompted.pretrained.kind, prompted.black_box.hidden_size, artifact.model, "prompt")
    prior = prior_of(artifact.result, artifact.spec.n_classes, path)
    return PromptClassifier(prompted, artifact.point, calibration.offset(prior))


def _open_learned(
    artifact: PromptArtifact,
    learned: LearnedHead,
    path: Path,
    model_name: str,
    settings: PromptSettings,
    dtype: str,
    device: str,
) -> LearnedPromptClassifier:
    model = open_learned_model(artifact.spec, model_name, settings, dtype, device, quantize=artifact.quantize)
    check_opened(model_name, model.words.kind, model.prompted.black_box.hidden_size, artifact.model, "prompt")
    check_head(learned, model.words, path)
    return LearnedPromptClassifier(model, artifact.point, learned.head)
