"""A model opened for a learned verbalizer: asked for words behind templates, and with a prompt in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from flaretune.methods.fedbpt.client import AsksModel
from flaretune.methods.verbalizer.head_steps import AskedTexts, WordFeatures
from flaretune.methods.verbalizer.open import OpenedWords, open_vllm_words, open_words
from flaretune.model_server.vllm import VllmServer
from flaretune.model_server.vllm_models import open_vllm_model
from flaretune.models.lanes import share_weights
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import PromptedModel, prompt_model
from flaretune.tasks.spec import TaskSpec

ANY_WORD = np.zeros(1, dtype=np.int64)  # until words are chosen


@dataclass(eq=False)
class PromptedTexts(AskedTexts):
    """Labelled texts that are registered with a black box too.

    Attributes:
        registered: what the black box gave for them; None where there are no texts.
        last: the last single search point, words and features behind its prompt, which several steps need.
    """

    registered: Any = None
    last: tuple[bytes, np.ndarray] | None = None


class LearnedFeatures:
    """Features of texts: log-probabilities behind T templates, asked once, and centred logits behind a prompt.

    A word is a pair of a template and a token id; the template T is the prompt. A logit is taken less the mean of all
    words in use behind the prompt: so nothing of the rest of the vocabulary is computed for a candidate.

    Args:
        black_box: the model with the prompt in it.
        use_words: lets it give the logits of other words, int (V,).
        templates: what the model says behind the templates.
        n_templates: T.
    """

    def __init__(
        self,
        black_box: AsksModel,
        use_words: Callable[[np.ndarray], None],
        templates: WordFeatures,
        n_templates: int,
    ):
        self._black_box, self._use_words = black_box, use_words
        self._templates, self._n_templates = templates, n_templates
        self._in_use = np.zeros(0, dtype=np.int64)

    def __call__(self, points: np.ndarray, data: PromptedTexts, words: np.ndarray) -> np.ndarray:
        """Features of λ search points, float (λ, d), for words, int64 (F, 2): float64 (λ, N, F)."""
        behind_prompt = words[:, 0] == self._n_templates
        fixed = self._templates.log_probs(data, words[~behind_prompt])  # (N, F - V)
        features = np.empty((len(points), len(data.labels), len(words)))
        features[:, :, ~behind_prompt] = fixed
        if behind_prompt.any() and len(data.labels):
            features[:, :, behind_prompt] = self._prompted(points, data, words[behind_prompt, 1])
        return features

    def _prompted(self, points: np.ndarray, data: PromptedTexts, token_ids: np.ndarray) -> np.ndarray:
        if not np.array_equal(token_ids, self._in_use):
            self._use_words(token_ids)
            self._in_use = token_ids
        key = np.asarray(points, dtype=np.float64).tobytes() + token_ids.tobytes()
        if data.last is None or data.last[0] != key:
            logits = self._black_box.label_logits(points, data.registered).astype(np.float64)  # (λ, N, V)
            found = logits - logits.mean(axis=-1, keepdims=True)
            if len(points) > 1:
                return found
            data.last = key, found
        return data.last[1]


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
