"""A model opened for a learned verbalizer: asked for words behind templates, and with a prompt in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from flaretune.methods.fedbpt.learned_client import LearnedFeatures, PromptedTexts
from flaretune.methods.verbalizer.head_steps import WordFeatures
from flaretune.methods.verbalizer.open import OpenedWords, open_vllm_words, open_words
from flaretune.model_server.vllm import VllmServer
from flaretune.model_server.vllm_prompted import open_vllm_model
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import PromptedModel, prompt_model
from flaretune.models.shared_weights import share_weights
from flaretune.tasks.spec import TaskSpec

ANY_WORD = np.zeros(1, dtype=np.int64)  # until words are chosen


@dataclass(frozen=True)
class LearnedModel:
    """The same weights twice.

    Attributes:
        words: with the whole output embedding, asked behind the task's templates.
        prompted: with a prompt in it, and the output embedding narrowed to the words in use.
    """

    words: OpenedWords
    prompted: PromptedModel

    def texts(
        self, texts: Sequence[Mapping[str, str]], labels: np.ndarray, counts: bool = True, reuse: bool = True
    ) -> PromptedTexts:
        """Labelled texts, registered with the prompted model; `reuse` as in `BlackBox.register`."""
        encoded = [self.prompted.encoder.encode(columns) for columns in texts]
        registered = self.prompted.black_box.register(encoded, reuse) if encoded else None
        return PromptedTexts(texts, labels, counts, registered=registered)

    def features(self, candidates: np.ndarray) -> tuple[WordFeatures, LearnedFeatures]:
        """Features behind the templates, for candidates, int64 (V,), and these with those behind a prompt."""
        n_templates = len(self.words.templates)
        asked = WordFeatures(self.words.log_probs, candidates, n_templates)
        use_words = partial(self.prompted.use_words, self.words.pretrained.model.get_output_embeddings())
        return asked, LearnedFeatures(self.prompted.black_box, use_words, asked, n_templates)


def open_learned_model(
    spec: TaskSpec,
    model_name: str,
    settings: PromptSettings,
    dtype: str,
    device: str,
    batch_size: int = 0,
    cache_mb: int = 0,
    quantize: str = "none",
) -> LearnedModel:
    """Load a model; see `models.prompted.open_prompted_model`.

    Raises:
        UserError: the model, the task's templates or the prompt's size do not fit together.
    """
    words = open_words(spec, model_name, dtype, device, batch_size, quantize)
    prompted = prompt_model(share_weights(words.pretrained), spec, settings, batch_size, cache_mb, words=ANY_WORD)
    return LearnedModel(words, prompted)


def open_learned_vllm(
    server: VllmServer, spec: TaskSpec, model_name: str, dtype: str, settings: PromptSettings
) -> LearnedModel:
    """The same with the model of a vLLM server, of which there are the tokenizer and the word embeddings here.

    Raises:
        UserError: the server's model is another, or does not fit the task.
    """
    words, check = open_vllm_words(server, spec, model_name, dtype)
    prompted = open_vllm_model(server, words.pretrained, check, spec, settings, words=ANY_WORD)
    return LearnedModel(words, prompted)
