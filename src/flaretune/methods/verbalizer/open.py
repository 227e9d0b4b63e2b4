"""A pretrained model made ready to be asked for words of its vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flaretune.data.tokens import text_ids
from flaretune.methods.verbalizer.settings import N_CANDIDATES, NEUTRAL_TEXTS, Vocabulary
from flaretune.model_server.vllm import VllmServer
from flaretune.model_server.vllm_check import VllmCheck
from flaretune.model_server.vllm_models import VllmWords, open_outline
from flaretune.models.black_box import default_batch_size
from flaretune.models.load import Pretrained, load_pretrained
from flaretune.models.verbalizer import label_word_ids, word_classes
from flaretune.models.word_log_probs import WordLogProbs
from flaretune.tasks.spec import Kind, TaskSpec


@dataclass(frozen=True)
class OpenedWords:
    """A model, its task, and the templates that it is asked with."""

    pretrained: Pretrained
    spec: TaskSpec
    templates: tuple[str, ...]
    log_probs: WordLogProbs | VllmWords

    @property
    def kind(self) -> Kind:
        return self.pretrained.kind

    @property
    def dtype(self) -> str:
        return self.log_probs.dtype

    @property
    def hidden_size(self) -> int:
        """D of the word embeddings."""
        return self.pretrained.model.get_input_embeddings().weight.shape[1]

    def label_ids(self) -> list[list[int]]:
        """Token ids of each class's label words; empty where the task names none.

        Raises:
            UserError: a word is not one token.
        """
        wording = self.spec.wording(self.kind)
        if not wording.has_label_words:
            return []
        ids = label_word_ids(self.pretrained.tokenizer, self.spec, self.kind)
        classes = word_classes(wording)
        classes = np.arange(len(ids)) if classes is None else classes
        return [ids[classes == class_id].tolist() for class_id in range(self.spec.n_classes)]

    def vocabulary(self) -> Vocabulary:
        """Label words and candidates: at least the label words, at most all words that stand for text."""
        tokenizer, label_ids = self.pretrained.tokenizer, self.label_ids()
        neutral_texts = [dict.fromkeys(self.spec.text_columns, text) for text in NEUTRAL_TEXTS]
        labels = np.array([token for of_class in label_ids for token in of_class], dtype=np.int64)
        every = np.union1d(text_ids(tokenizer), labels)
        said = self.log_probs(neutral_texts, every).astype(np.float64).mean(axis=0)  # (T, V)
        order = every[np.lexsort((every, -said.mean(axis=0)))]
        candidates = np.concatenate([labels, order[~np.isin(order, labels)]])[: max(N_CANDIDATES, len(labels))]
        neutral = said[:, np.searchsorted(every, candidates)].astype(np.float32)
        return Vocabulary(label_ids, candidates, [tokenizer.decode([token]) for token in candidates], neutral)


def open_words(
    spec: TaskSpec, model_name: str, dtype: str, device: str, batch_size: int = 0, quantize: str = "none"
) -> OpenedWords:
    """Load a model.

    Args:
        spec: the task; all its templates of the model's kind are asked with.
        model_name, dtype, device, batch_size, quantize: the options of these names.

    Raises:
        UserError: the model cannot be loaded, or the task has no template for it.
    """
    pretrained = load_pretrained(model_name, dtype, device, quantize)
    templates = _templates(spec, pretrained.kind)
    batch_size = batch_size or default_batch_size(pretrained.device)
    return OpenedWords(pretrained, spec, templates, WordLogProbs(pretrained, spec, templates, batch_size))


def open_vllm_words(server: VllmServer, spec: TaskSpec, model_name: str, dtype: str) -> tuple[OpenedWords, VllmCheck]:
    """The model of a vLLM server, and the check that found it to be this one; see `open_words`.

    Raises:
        UserError: the server's model is another, or the task has no template for it.
    """
    outline, check = open_outline(server, model_name, dtype)
    templates = _templates(spec, outline.kind)
    words = VllmWords(server, outline, spec, templates, check.dtype)
    return OpenedWords(outline, spec, templates, words), check


def _templates(spec: TaskSpec, kind: Kind) -> tuple[str, ...]:
    wording = spec.wording(kind)
    return (wording.template, *(wording.templates or ()))
