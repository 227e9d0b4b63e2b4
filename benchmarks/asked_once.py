"""The learned verbalizer with one model for all clients and all runs of a process, asked once about each text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flaretune.methods.base import Client, ClientContext
from flaretune.methods.client_data import load_data
from flaretune.methods.verbalizer import Verbalizer
from flaretune.methods.verbalizer.client import ModelFacts, VerbalizerClient
from flaretune.methods.verbalizer.config import VerbalizerConfig
from flaretune.methods.verbalizer.head_steps import AsksForWords
from flaretune.methods.verbalizer.open import open_words
from flaretune.methods.verbalizer.settings import Vocabulary


class Remembering:
    """`WordLogProbs` that remembers what it has said of each text.

    Args:
        model: is asked about texts that are new.
        candidates: token ids of all words that are ever wanted, int64, ascending.

    Attributes:
        example_forwards: of the texts that say nothing, which every client of a job asks about; what it asks about more
            is counted by its features.
    """

    gives_all = True

    def __init__(self, model: AsksForWords, candidates: np.ndarray):
        self._model, self._candidates = model, candidates
        self._said: dict[tuple, np.ndarray] = {}  # text -> float32 (T, V)
        self.example_forwards = model.example_forwards

    def __call__(self, texts: Sequence[Mapping[str, str]], token_ids: np.ndarray) -> np.ndarray:
        keys = [tuple(sorted(text.items())) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._said}
        if new:
            self._said |= dict(zip(new, self._model(list(new.values()), self._candidates), strict=True))
        columns = np.searchsorted(self._candidates, token_ids)
        if not np.array_equal(self._candidates[columns], token_ids):
            raise ValueError("a word is wanted that is no candidate")
        return np.stack([self._said[key] for key in keys])[:, :, columns]


@dataclass(frozen=True)
class Opened:
    """What all clients share."""

    facts: ModelFacts
    templates: Sequence[str]
    vocabulary: Vocabulary
    model: Remembering


class AskedOnce(Verbalizer):
    """A `Method` for many runs with the same task and model.

    Attributes:
        opened: what they share; set by the first client.
    """

    def __init__(self) -> None:
        self.opened: Opened | None = None

    def client(self, config: VerbalizerConfig, context: ClientContext) -> Client:
        spec, data = load_data(config, context)
        if self.opened is None:
            words = open_words(spec, config.model_name, config.dtype, config.device, quantize=config.quantize)
            vocabulary = words.vocabulary()
            model = Remembering(words.log_probs, np.sort(vocabulary.candidates))
            facts = ModelFacts(words.kind, words.hidden_size, words.dtype)
            self.opened = Opened(facts, words.templates, vocabulary, model)
        o = self.opened
        return VerbalizerClient(
            config, spec, o.facts, o.templates, o.vocabulary, o.model, data.train, data.validation, data.test
        )
