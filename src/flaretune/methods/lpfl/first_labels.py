"""The first soft labels of a client: what a learned verbalizer says before anything is trained.

The pretrained model is asked once about the labelled texts, the clients' sums give a verbalizer (`methods.verbalizer`),
and the model is asked once about the unlabelled texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flaretune.data.load import Examples
from flaretune.methods.exchanged import Arrays, FitRequest
from flaretune.methods.message import unreadable
from flaretune.methods.verbalizer.features import Labelled, WordFeatures
from flaretune.methods.verbalizer.head import sent_head
from flaretune.methods.verbalizer.head_steps import HeadSteps
from flaretune.methods.verbalizer.open import OpenedWords


class FirstLabels:
    """A client's part in making a verbalizer, and what that says of the unlabelled texts.

    Args:
        words: the pretrained model, which stays as it is.
        train, validation: labelled texts; validation may be empty.
        pool: the unlabelled texts.

    Attributes:
        neutral: what `head_start.start_head_fit` takes of this name.
    """

    def __init__(self, words: OpenedWords, train: Examples, validation: Examples, pool: Sequence[Mapping[str, str]]):
        self._words, self._pool = words, pool
        self._vocabulary, n_templates = words.vocabulary(), len(words.templates)
        self.neutral = self._vocabulary.neutral
        features = WordFeatures(words.log_probs, self._vocabulary.candidates, n_templates)
        labelled = (Labelled(data.texts, data.labels) for data in (train, validation))
        self._steps = HeadSteps(features.log_probs, *labelled, words.spec.n_classes, n_templates)
        self._told = 0

    def new_forwards(self) -> int:
        """Texts sent through the model since this was called last, once for each template."""
        before, self._told = self._told, self._words.log_probs.example_forwards
        return self._told - before

    def settings(self) -> dict[str, Any]:
        """See `Vocabulary.settings`."""
        return self._vocabulary.settings(self._words.templates)

    def reply(self, request: FitRequest) -> dict[str, np.ndarray]:
        """Arrays of the reply to a step of making a verbalizer.

        Raises:
            UserError: the server's message cannot be read.
        """
        return self._steps.reply(request.step, request.arrays, request.numbers)

    def logits(self, arrays: Arrays, wanted: np.ndarray) -> np.ndarray:
        """Scores of the classes for some of the unlabelled texts, float64 (N, C), whose softmax are probabilities.

        Args:
            arrays: of the server's message, with the verbalizer among them.
            wanted: the texts, by their index in the pool, int (N,).

        Raises:
            UserError: the server's message cannot be read.
        """
        try:
            head = sent_head(arrays)
        except ValueError as error:
            raise unreadable(error) from error
        tokens, (template, token) = np.unique(head.words[:, 1]), head.words.T
        said = self._words.log_probs([self._pool[i] for i in wanted], tokens)  # (N, T, V)
        return head.logits(said[:, template, np.searchsorted(tokens, token)])
