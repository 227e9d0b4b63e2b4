"""Log-probabilities of words for a client's texts: the model is asked once about each text and template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


class AsksForWords(Protocol):
    """The model, seen from here (`models.word_log_probs.WordLogProbs` is one).

    Attributes:
        example_forwards: examples sent through the model so far.
        gives_all: whether a pass over a text gives any number of words.
    """

    example_forwards: int
    gives_all: bool

    def __call__(self, texts: Sequence[Mapping[str, str]], token_ids: np.ndarray) -> np.ndarray:
        """Log-probabilities of chosen words: N texts, ids (V,) → float32 (N, T, V) for T templates."""


@dataclass(eq=False)
class Labelled:
    """Texts, class ids, int64 (N,), and what the model has said of them.

    Attributes:
        counts: whether a pass over them is counted as the method's; those over test data are not.
        ids: token ids of the log-probabilities that are kept, int64 (V,).
        log_probs: float32 (N, T, V); None before the pass.
    """

    texts: Sequence[Mapping[str, str]]
    labels: np.ndarray
    counts: bool = True
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    log_probs: np.ndarray | None = None


class WordFeatures:
    """What a client's model says of its texts.

    Args:
        model: gives log-probabilities of words.
        candidates: token ids of all words that may be wanted, int64 (V,).
        n_templates: T, that the model is asked with.

    Attributes:
        forwards: examples sent through the model so far, those of test data left out.
    """

    def __init__(self, model: AsksForWords, candidates: np.ndarray, n_templates: int):
        self._model, self._candidates, self._n_templates = model, candidates, n_templates
        self.forwards = model.example_forwards

    def log_probs(self, data: Labelled, words: np.ndarray) -> np.ndarray:
        """Log-probabilities of words, int64 (F, 2) as in `Head.words`, float32 (N, F).

        The model is asked for all candidates at once; again only for words that no candidate of this client was, which
        happens where another client's numbers differ a little. A model that charges for words is asked for those that
        are needed, when they are.
        """
        if not len(data.labels) or not len(words):
            return np.zeros((len(data.labels), len(words)), dtype=np.float32)
        missing = np.setdiff1d(words[:, 1], data.ids)
        if data.log_probs is None or len(missing):
            wanted = np.union1d(data.ids, missing)
            if self._model.gives_all:
                wanted = np.union1d(wanted, self._candidates)
            data.log_probs, data.ids = self._model(data.texts, wanted), wanted
            if data.counts:
                self.forwards += len(data.labels) * self._n_templates
        return data.log_probs[:, words[:, 0], np.searchsorted(data.ids, words[:, 1])]
