"""The learned verbalizer with one model for all clients and all runs of a process, asked once about each text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from flaretune.methods.base import Client, ClientContext
from flaretune.methods.client_data import load_data
from flaretune.methods.verbalizer import Verbalizer
from flaretune.methods.verbalizer.client import ModelFacts, VerbalizerClient
from flaretune.methods.verbalizer.config import VerbalizerConfig
from flaretune.methods.verbalizer.features import AsksForWords
from flaretune.methods.verbalizer.open import open_words
from flaretune.methods.verbalizer.settings import Vocabulary
from flaretune.tasks.spec import load_task


class Remembering:
    """`WordLogProbs` that remembers what it has said of each text.

    Args:
        model: is asked about texts that are new.
        candidates: token ids of all words that are ever wanted, int64, ascending.
    """

    def __init__(self, model: AsksForWords, candidates: np.ndarray):
        self._model, self._candidates = model, candidates
        self._said: dict[tuple, np.ndarray] = {}  # text -> float32 (T, V)
        self.example_forwards = 0

    def __call__(self, texts: Sequence[Mapping[str, str]], token_ids: np.ndarray) -> np.ndarray:
        keys = [tuple(sorted(text.items())) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._said}
        if new:
            self._said |= dict(zip(new, self._model(list(new.values()), self._candidates), strict=True))
        columns = np.searchsorted(self._candidates, token_ids)
        if not np.array_equal(self._candidates[columns], token_ids):
            raise ValueError("a word is wanted that is no candidate")
        return np.stack([self._said[key] for key in keys])[:, :, columns]


class AskedOnce(Verbalizer):
    """A `Method` for many runs with the same task and model."""

    def __init__(self) -> None:
        self._opened: tuple[ModelFacts, Sequence[str], Vocabulary, Remembering] | None = None

    def client(self, config: VerbalizerConfig, context: ClientContext) -> Client:
        spec, data = load_data(config, context)
        if self._opened is None:
            words = open_words(load_task(config.task), config.model_name, config.dtype, config.device)
            vocabulary = words.vocabulary()
            model = Remembering(words.log_probs, np.sort(vocabulary.candidates))
            facts = ModelFacts(words.kind, words.hidden_size, words.dtype)
            self._opened = facts, words.templates, vocabulary, model
        return VerbalizerClient(config, spec, *self._opened, data.train, data.validation, data.test)
