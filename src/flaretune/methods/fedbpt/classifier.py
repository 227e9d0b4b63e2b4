"""A saved prompt with its model, to classify texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaretune.data.load import Examples
from flaretune.methods.artifact_parts import build_settings, check_opened, prior_of
from flaretune.methods.classifier import Classifier
from flaretune.methods.fedbpt.artifact import PromptArtifact
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.fedbpt.learned_model import LearnedModel, open_learned_model
from flaretune.methods.verbalizer.classifier import check_head, zero_shot
from flaretune.methods.verbalizer.head import Head
from flaretune.models.progress import Progress
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import PromptedModel, open_prompted_model
from flaretune.softmax import softmax
from flaretune.tasks import calibration


@dataclass(frozen=True)
class PromptClassifier(Classifier):
    """A black box, a search point, float32, shape (d,), and what its logits are shifted by, (C,)."""

    prompted: PromptedModel
    point: np.ndarray
    offset: np.ndarray

    def _logits(self, texts: Sequence[Mapping[str, str]], progress: Progress) -> np.ndarray:
        encoded = [self.prompted.encoder.encode(columns) for columns in texts]
        registered = self.prompted.black_box.register(encoded, reuse=False)
        return self.prompted.black_box.label_logits(self.point[None], registered, progress)[0] + self.offset

    def zero_shot(self, examples: Examples) -> np.ndarray:
        return softmax(self.prompted.zero_shot_logits(examples))


@dataclass(frozen=True)
class LearnedPromptClassifier(Classifier):
    """The same with a learned verbalizer."""

    model: LearnedModel
    point: np.ndarray
    head: Head

    def _logits(self, texts: Sequence[Mapping[str, str]], progress: Progress) -> np.ndarray:
        data = self.model.texts(texts, np.zeros(len(texts), dtype=np.int64), reuse=False)
        _, features = self.model.features(np.unique(self.head.words[:, 1]))
        return self.head.logits(features(self.point[None], data, self.head.words)[0])

    def zero_shot(self, examples: Examples) -> np.ndarray:
        return zero_shot(self.model.words, examples)


def open_saved(
    artifact: PromptArtifact, path: Path, model_name: str, dtype: str, device: str
) -> PromptClassifier | LearnedPromptClassifier:
    """Load the model of a prompt; see `Method.open`."""
    settings = build_settings(FedBPTConfig, PromptSettings, artifact.options, path)
    spec, learned, place = artifact.spec, artifact.learned, {"dtype": dtype, "device": device}
    if learned:
        model = open_learned_model(spec, model_name, settings, **place, quantize=artifact.quantize)
        prompted = model.prompted
    else:
        prompted = open_prompted_model(spec, model_name, settings, **place, quantize=artifact.quantize)
    kind = prompted.pretrained.kind
    check_opened(model_name, kind, prompted.black_box.hidden_size, artifact.model, "prompt")
    if learned:
        check_head(learned, model.words, path)
        return LearnedPromptClassifier(spec, kind, model, artifact.point, learned.head)
    offset = calibration.offset(prior_of(artifact.result, spec.n_classes, path))
    return PromptClassifier(spec, kind, prompted, artifact.point, offset)
