"""What a learned verbalizer is made of in FedBPT: words behind the task's templates, and behind the searched prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from flaretune.methods.verbalizer.features import Labelled, WordFeatures


class PromptedWords(Protocol):
    """The model with a prompt in it, seen from here (`models.black_box.BlackBox` is one)."""

    example_forwards: int

    def label_logits(self, points: np.ndarray, texts: Any) -> np.ndarray:
        """Search points, float (λ, d) → logits of the words in use, float32 (λ, N, V)."""


@dataclass(eq=False)
class PromptedTexts(Labelled):
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
        black_box: PromptedWords,
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
            self._in_use, data.last = token_ids, None
        key = np.asarray(points, dtype=np.float64).tobytes() + token_ids.tobytes()
        if data.last is None or data.last[0] != key:
            logits = self._black_box.label_logits(points, data.registered).astype(np.float64)  # (λ, N, V)
            found = logits - logits.mean(axis=-1, keepdims=True)
            if len(points) > 1:
                return found
            data.last = key, found
        return data.last[1]
