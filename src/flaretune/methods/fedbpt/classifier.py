"""A prompt of FedBPT, ready to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaretune.data.load import Examples
from flaretune.methods.classifier import check_model, prior_of, settings_of_result, softmax
from flaretune.methods.fedbpt.artifact import load_prompt
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.models.progress import Progress, in_silence
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import PromptedModel, open_prompted_model
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


def open_prompt(
    path: str | Path, model_name: str | None = None, dtype: str = "auto", device: str = "auto"
) -> PromptClassifier:
    """Open a prompt file with its model, task and settings.

    Args:
        path: the file.
        model_name: hub id or folder of the model it was found with; default what the file says, which is the
            place at the client that reported it.
        dtype: see the option ``--dtype``. Clients choose theirs, so the file holds none.
        device: see the option ``--device``.

    Raises:
        UserError: the file is no prompt, or the model cannot be loaded or is not the one it was found with.
    """
    artifact = load_prompt(path)
    settings = settings_of_result(FedBPTConfig, PromptSettings, artifact.options, path)
    name = model_name or artifact.model["name"]
    prompted = open_prompted_model(artifact.spec, name, settings, dtype=dtype, device=device)
    check_model(name, prompted.pretrained.kind, prompted.black_box.hidden_size, artifact.model, "prompt")
    return PromptClassifier(prompted, artifact.point, calibration.offset(prior_of(artifact, path)))
