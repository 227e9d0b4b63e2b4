"""A learned verbalizer, ready to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaretune.data.load import Examples
from flaretune.errors import UserError
from flaretune.methods.artifact_parts import check_opened
from flaretune.methods.classifier import Classifier
from flaretune.methods.verbalizer.artifact import LearnedHead, VerbalizerArtifact
from flaretune.methods.verbalizer.head import Head, label_word_head
from flaretune.methods.verbalizer.open import OpenedWords, open_words
from flaretune.models.progress import Progress, in_silence
from flaretune.softmax import softmax


@dataclass(frozen=True)
class VerbalizerClassifier(Classifier):
    """A model that is asked for words, and a head."""

    words: OpenedWords
    head: Head

    def _logits(self, texts: Sequence[Mapping[str, str]], progress: Progress) -> np.ndarray:
        return _logits(self.words, self.head, texts, progress)

    def zero_shot(self, examples: Examples) -> np.ndarray:
        return zero_shot(self.words, examples)


def zero_shot(words: OpenedWords, examples: Examples) -> np.ndarray:
    """See `Classifier.zero_shot`."""
    if not (label_ids := words.label_ids()):
        raise UserError(
            f'task {words.spec.name!r} has label_words = "auto", so that the model and the template alone tell no '
            "classes apart: there is no zero-shot to measure"
        )
    return softmax(_logits(words, label_word_head(label_ids, words.spec.n_classes), examples.texts, in_silence))


def _logits(words: OpenedWords, head: Head, texts: Sequence[Mapping[str, str]], progress: Progress) -> np.ndarray:
    if not len(head.words):
        return np.zeros((len(texts), words.spec.n_classes))
    ids, columns = np.unique(head.words[:, 1], return_inverse=True)
    log_probs = words.log_probs(texts, ids, progress)  # (N, T, V)
    return head.logits(log_probs[:, head.words[:, 0], columns])


def open_saved(
    artifact: VerbalizerArtifact, path: Path, model_name: str, dtype: str, device: str
) -> VerbalizerClassifier:
    """Load the model of a learned verbalizer; see `Method.open`."""
    words = open_words(artifact.spec, model_name, dtype, device, quantize=artifact.quantize)
    check_opened(model_name, words.kind, words.hidden_size, artifact.model, "verbalizer")
    check_head(artifact.learned, words, path)
    return VerbalizerClassifier(artifact.spec, words.kind, words, artifact.learned.head)


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
