"""A learned verbalizer, ready to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaretune.data.load import Examples
from flaretune.errors import UserError
from flaretune.methods.artifact_parts import check_opened
from flaretune.methods.verbalizer.artifact import LearnedHead, VerbalizerArtifact
from flaretune.methods.verbalizer.head import Head, label_word_head
from flaretune.methods.verbalizer.open import OpenedWords, open_words
from flaretune.models.progress import Progress, in_silence
from flaretune.softmax import softmax
from flaretune.tasks.spec import Kind, TaskSpec


@dataclass(frozen=True)
class VerbalizerClassifier:
    """A `Classifier`: a model that is asked for words, and a head."""

    words: OpenedWords
    head: Head

    @property
    def spec(self) -> TaskSpec:
        return self.words.spec

    @property
    def kind(self) -> Kind:
        return self.words.kind

    def probabilities(self, texts: Sequence[Mapping[str, str]], progress: Progress = in_silence) -> np.ndarray:
        return self._probabilities(self.head, texts, progress)

    def zero_shot(self, examples: Examples) -> np.ndarray:
        if not (label_ids := self.words.label_ids()):
            raise UserError(
                f'task {self.spec.name!r} has label_words = "auto", so that the model and the template alone tell no '
                "classes apart: there is no zero-shot to measure"
            )
        head = label_word_head(label_ids, self.spec.n_classes)
        return self._probabilities(head, examples.texts, in_silence)

    def _probabilities(self, head: Head, texts: Sequence[Mapping[str, str]], progress: Progress) -> np.ndarray:
        if not len(texts):
            return np.empty((0, self.spec.n_classes))
        if not len(head.words):
            return np.full((len(texts), self.spec.n_classes), 1 / self.spec.n_classes)
        ids, columns = np.unique(head.words[:, 1], return_inverse=True)
        log_probs = self.words.log_probs(texts, ids, progress)  # (N, T, V)
        return softmax(head.logits(log_probs[:, head.words[:, 0], columns]))


def open_saved(
    artifact: VerbalizerArtifact, path: Path, model_name: str, dtype: str, device: str
) -> VerbalizerClassifier:
    """Load the model of a learned verbalizer; see `methods.registry.Saved.open`.

    Raises:
        UserError: the model cannot be loaded or is not the one that it was found with.
    """
    words = open_words(artifact.spec, model_name, dtype, device, quantize=artifact.quantize)
    check_opened(model_name, words.kind, words.hidden_size, artifact.model, "verbalizer")
    check_head(artifact.learned, words, path)
    return VerbalizerClassifier(words, artifact.learned.head)


def check_head(learned: LearnedHead, words: OpenedWords, path: Path) -> None:
    """Whether a model that was opened for the task can be asked for a head's words.

    Raises:
        UserError: it cannot; says why.
    """
    if list(words.templates) != list(learned.templates):
        raise UserError(f"{path}: its templates are not its task's; use the version of flaretune that wrote it")
    n_words, head = words.pretrained.model.get_output_embeddings().weight.shape[0], learned.head
    if len(head.words) and head.words[:, 1].max() >= n_words:
        raise UserError(
            f"--model_name {words.pretrained.name}: it has {n_words} words, and {path} needs more; give the model that "
            "it was found with"
        )
