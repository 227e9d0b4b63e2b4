"""A client of FedBPT whose classes are told by a learned verbalizer.

Round 0 makes one of what the model says behind the task's templates and the untouched prompt. A round's search makes
the loss of the last head small, for which nothing but the prompt moves; then a head is made for where it has led to.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flaretune.methods.client_data import settings_of
from flaretune.methods.exchanged import Arrays, EvaluateResult, FitRequest, FitResult, InitializeResult
from flaretune.methods.fedbpt.client import FedBPTClient
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.message import read_array, readable
from flaretune.methods.verbalizer.head import HEAD_STEPS, Head, label_word_head, sent_head
from flaretune.methods.verbalizer.head_steps import AskedTexts, HeadSteps
from flaretune.methods.verbalizer.settings import NEUTRAL
from flaretune.tasks.evaluation import Counters

if TYPE_CHECKING:
    from flaretune.data.shares import ClientData
    from flaretune.methods.fedbpt.learned_model import LearnedModel, PromptedTexts


class LearnedFedBPTClient(FedBPTClient):
    """See `FedBPTClient`.

    Args:
        config, name: as there.
        model: asked for words, and with a prompt in it.
        data: of the client.
    """

    def __init__(self, config: FedBPTConfig, name: str, model: LearnedModel, data: ClientData):
        self._templates, self._vocabulary = list(model.words.templates), model.words.vocabulary()
        self._asked, self._features = model.features(self._vocabulary.candidates)
        train, validation = (model.texts(some.texts, some.labels) for some in (data.train, data.validation))
        test = None if data.test is None else model.texts(data.test.texts, data.test.labels, counts=False)
        spec, prompted = model.words.spec, model.prompted
        texts = (train, validation, test, _no_texts, _no_texts)
        super().__init__(config, name, spec, prompted.facts, prompted.black_box, *texts)
        self._head: Head = label_word_head(self._vocabulary.label_ids, spec.n_classes)
        self._point = np.zeros(config.intrinsic_dim)
        self._steps = HeadSteps(self._at_point, train, validation, spec.n_classes, len(self._templates))

    def initialize(self) -> InitializeResult:
        started = time.monotonic()
        evaluation = self._evaluation(self._point)  # of the label words behind the first template
        about, facts = self._vocabulary.settings(self._templates), self._facts
        return InitializeResult(
            settings=settings_of(self._config, self.spec, facts.kind, facts.hidden_size, **about),
            n_train=len(self._train.labels),
            zero_shot=evaluation.test if self._vocabulary.label_ids else None,
            evaluation=evaluation,
            counters=Counters(0, self._asked.forwards, time.monotonic() - started),
            dtype=facts.dtype,
            arrays={NEUTRAL: self._vocabulary.neutral},
        )

    def fit(self, request: FitRequest) -> FitResult:
        """A step of making a head, or a search."""
        if request.step not in HEAD_STEPS:
            self._take_head(request.arrays)
            result, again = super().fit(request), self._asked.new_forwards()  # where this process was started anew
            forwards = result.counters.example_forwards + again
            return replace(result, counters=replace(result.counters, example_forwards=forwards))
        started, before = time.monotonic(), self._black_box.example_forwards
        with readable():
            self._point = read_array(request.arrays, "mean", (self._config.intrinsic_dim,)).astype(np.float64)
        arrays = self._steps.reply(request.step, request.arrays, request.numbers)
        forwards = self._black_box.example_forwards - before + self._asked.new_forwards()
        counters = Counters(0, forwards, time.monotonic() - started)
        return FitResult(arrays, {"n_train": len(self._train.labels)}, counters)

    def evaluate(self, arrays: Arrays) -> EvaluateResult:
        self._take_head(arrays)
        return super().evaluate({"mean": arrays["mean"]} if "mean" in arrays else {})

    def _logits(self, points: np.ndarray, data: PromptedTexts) -> np.ndarray:
        return self._head.logits(self._features(points, data, self._head.words))

    def _at_point(self, data: AskedTexts, words: np.ndarray) -> np.ndarray:
        """Features of the search point that a head is made for, float64 (N, F)."""
        return self._features(self._point[None], data, words)[0]

    def _take_head(self, arrays: Arrays) -> None:
        with readable():
            self._head = sent_head(arrays)


def _no_texts(*_: Any) -> Any:
    raise AssertionError("a learned verbalizer has neither perturbed texts nor a plain black box")
