"""The client's side of making a head: words that the model is asked for once, and sums over them in three steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from flaretune.methods.client_data import Labelled
from flaretune.methods.exchanged import Arrays
from flaretune.methods.message import readable
from flaretune.methods.verbalizer.head import LOSSES, SUMS, WORDS
from flaretune.methods.verbalizer.ridge import TEMPERATURES, leave_one_out, losses
from flaretune.methods.verbalizer.statistics import clipped, gram_sums, word_statistics


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
class AskedTexts(Labelled):
    """Texts, by column, and what the model has said of them.

    Attributes:
        counts: whether a pass over them is counted as the method's; those over test data are not.
        ids: token ids of the log-probabilities that are kept, int64 (V,).
        log_probs: float32 (N, T, V); None before the pass.
    """

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
        self.forwards, self._told = model.example_forwards, 0

    def new_forwards(self) -> int:
        """Those since the last call."""
        new, self._told = self.forwards - self._told, self.forwards
        return new

    def log_probs(self, data: AskedTexts, words: np.ndarray) -> np.ndarray:
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


class HeadSteps:
    """A client's replies to the three steps (see `head_fit`).

    Args:
        log_probs: of the words of a head, int64 (F, 2), for texts: float (N, F).
        train, validation: labelled texts; validation may be empty.
        n_classes: C.
        n_templates: T, that words are chosen behind.
        private: whether the sums are to be noised, so that each text counts for so much at the most.
    """

    def __init__(
        self,
        log_probs: Callable[[AskedTexts, np.ndarray], np.ndarray],
        train: AskedTexts,
        validation: AskedTexts,
        n_classes: int,
        n_templates: int,
        private: bool = False,
    ):
        self._log_probs, self._train, self._validation = log_probs, train, validation
        self._n_classes, self._n_templates, self._private = n_classes, n_templates, private

    def reply(self, step: str, arrays: Arrays, numbers: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Arrays of the reply to a step.

        Raises:
            UserError: the server's message cannot be read.
        """
        steps = {WORDS: self._word_statistics, SUMS: self._gram_sums, LOSSES: self._losses}
        with readable():
            return steps[step](arrays, numbers)

    def _word_statistics(self, arrays: Arrays, numbers: Mapping[str, Any]) -> dict[str, np.ndarray]:
        tokens = arrays["candidates"].astype(np.int64)  # (V,)
        pairs = [(template, token) for template in range(self._n_templates) for token in tokens]
        features = self._log_probs(self._train, np.array(pairs, dtype=np.int64).reshape(-1, 2))
        return word_statistics(features, self._train.labels, self._n_classes).arrays()

    def _gram_sums(self, arrays: Arrays, numbers: Mapping[str, Any]) -> dict[str, np.ndarray]:
        features = self._features(self._train, arrays)
        if self._private:
            features = clipped(features)
        return gram_sums(features, self._train.labels, self._n_classes).arrays()

    def _losses(self, arrays: Arrays, numbers: Mapping[str, Any]) -> dict[str, np.ndarray]:
        data = self._train if numbers["leave_one_out"] else self._validation
        weights, biases = arrays["weights"], arrays["biases"]  # (L, F, C), (L, C)
        if self._private or not len(data.labels):  # with noise, nothing but the sums is told
            return {"losses": np.zeros((len(weights), len(TEMPERATURES))), "n": np.zeros(1)}
        features = self._features(data, arrays)
        if numbers["leave_one_out"]:
            solved = (arrays[name] for name in ("mean", "basis", "spectrum", "shrinkages"))
            scores = leave_one_out(features, data.labels, *solved, weights, biases, numbers["n_train"])
        else:
            scores = features @ weights + biases[:, None]  # (L, N, C)
        return {"losses": losses(scores, data.labels), "n": np.array([float(len(data.labels))])}

    def _features(self, data: AskedTexts, arrays: Arrays) -> np.ndarray:
        """Log-probabilities of the server's words, centred and scaled as it says, float64 (N, F)."""
        values = self._log_probs(data, arrays["words"].astype(np.int64)).astype(np.float64)
        return (values - arrays["center"]) / arrays["scale"]
