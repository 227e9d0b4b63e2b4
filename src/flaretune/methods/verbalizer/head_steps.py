"""The client's side of making a head: sums over its texts, in three steps (see `head_fit`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flaretune.methods.exchanged import Arrays
from flaretune.methods.message import readable
from flaretune.methods.verbalizer.features import Labelled
from flaretune.methods.verbalizer.head import LOSSES, SUMS, WORDS
from flaretune.methods.verbalizer.private import clipped
from flaretune.methods.verbalizer.ridge import TEMPERATURES, leave_one_out, losses
from flaretune.methods.verbalizer.statistics import gram_sums, word_statistics


class HeadSteps:
    """A client's replies to the three steps.

    Args:
        log_probs: of the words of a head, int64 (F, 2), for texts: float (N, F).
        train, validation: labelled texts; validation may be empty.
        n_classes: C.
        n_templates: T, that words are chosen behind.
        private: whether the sums are to be noised, so that each text counts for so much at the most.
    """

    def __init__(
        self,
        log_probs: Callable[[Labelled, np.ndarray], np.ndarray],
        train: Labelled,
        validation: Labelled,
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

    def _features(self, data: Labelled, arrays: Arrays) -> np.ndarray:
        """Log-probabilities of the server's words, centred and scaled as it says, float64 (N, F)."""
        values = self._log_probs(data, arrays["words"].astype(np.int64)).astype(np.float64)
        return (values - arrays["center"]) / arrays["scale"]
