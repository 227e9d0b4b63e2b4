"""A client of FedBPT whose classes are told by a learned verbalizer.

Round 0 makes one of what the model says behind the task's templates and the untouched prompt. A round's search makes
the loss of the last head small, for which nothing but the prompt moves; then a head is made for where it has led to.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from flaretune.methods.client_data import settings_of
from flaretune.methods.exchanged import Arrays, EvaluateResult, FitRequest, FitResult, InitializeResult
from flaretune.methods.fedbpt.client import FedBPTClient
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.fedbpt.learned_features import LearnedFeatures, PromptedTexts
from flaretune.methods.message import read_array, unreadable
from flaretune.methods.verbalizer.features import Labelled, WordFeatures
from flaretune.methods.verbalizer.head import HEAD_STEPS, Head, label_word_head, sent_head
from flaretune.methods.verbalizer.head_steps import HeadSteps
from flaretune.methods.verbalizer.settings import NEUTRAL, Vocabulary
from flaretune.models.prompt_settings import ModelFacts
from flaretune.tasks.evaluation import Counters
from flaretune.tasks.spec import TaskSpec


class LearnedFedBPTClient(FedBPTClient):
    """See `FedBPTClient`.

    Args:
        config, name, spec, facts: as there.
        templates: that the model is asked with once.
        vocabulary: of the model.
        asked: what it says behind them.
        features: of texts.
        black_box: the model with the prompt in it.
        train, validation, test: as there.
    """

    def __init__(
        self,
        config: FedBPTConfig,
        name: str,
        spec: TaskSpec,
        facts: ModelFacts,
        templates: list[str],
        vocabulary: Vocabulary,
        asked: WordFeatures,
        features: LearnedFeatures,
        black_box: Any,
        train: PromptedTexts,
        validation: PromptedTexts,
        test: PromptedTexts | None,
    ):
        super().__init__(config, name, spec, facts, black_box, train, validation, test, _no_texts, _no_texts)
        self._templates, self._vocabulary, self._asked, self._features = templates, vocabulary, asked, features
        self._head: Head = label_word_head(vocabulary.label_ids, spec.n_classes)
        self._point = np.zeros(config.intrinsic_dim)
        self._forwards_told = 0  # of the passes behind the templates
        self._steps = HeadSteps(self._at_point, train, validation, spec.n_classes, len(templates))

    def initialize(self) -> InitializeResult:
        started = time.monotonic()
        evaluation = self._evaluation(self._point)  # of the label words behind the first template
        return InitializeResult(
            settings=settings_of(
                self._config,
                self.spec,
                self._facts.kind,
                self._facts.hidden_size,
                **self._vocabulary.settings(self._templates),
            ),
            n_train=len(self._train.labels),
            zero_shot=evaluation.test if self._vocabulary.label_ids else None,
            evaluation=evaluation,
            counters=Counters(len(self._templates), self._asked.forwards, time.monotonic() - started),
            dtype=self._facts.dtype,
            arrays={NEUTRAL: self._vocabulary.neutral},
        )

    def fit(self, request: FitRequest) -> FitResult:
        """A step of making a head, or a search."""
        if request.step not in HEAD_STEPS:
            self._take_head(request.arrays)
            result, again = super().fit(request), self._new_forwards()  # where this process was started anew
            forwards = result.counters.example_forwards + again
            return replace(result, counters=replace(result.counters, example_forwards=forwards))
        started, before = time.monotonic(), self._black_box.example_forwards
        self._point = self._mean_of(request.arrays)
        arrays = self._steps.reply(request.step, request.arrays, request.numbers)
        forwards = self._black_box.example_forwards - before + self._new_forwards()
        counters = Counters(len(self._templates) + 1, forwards, time.monotonic() - started)
        return FitResult(arrays, {"n_train": len(self._train.labels)}, counters)

    def evaluate(self, arrays: Arrays) -> EvaluateResult:
        self._take_head(arrays)
        return super().evaluate({"mean": arrays["mean"]} if "mean" in arrays else {})

    def _logits(self, points: np.ndarray, data: PromptedTexts) -> np.ndarray:
        return self._head.logits(self._features(points, data, self._head.words))

    def _at_point(self, data: Labelled, words: np.ndarray) -> np.ndarray:
        """Features of the search point that a head is made for, float64 (N, F)."""
        return self._features(self._point[None], data, words)[0]

    def _take_head(self, arrays: Arrays) -> None:
        try:
            self._head = sent_head(arrays)
        except ValueError as error:
            raise unreadable(error) from error

    def _mean_of(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        try:
            return read_array(arrays, "mean", (self._config.intrinsic_dim,)).astype(np.float64)
        except ValueError as error:
            raise unreadable(error) from error

    def _new_forwards(self) -> int:
        new, self._forwards_told = self._asked.forwards - self._forwards_told, self._asked.forwards
        return new


def _no_texts(*_: Any) -> Any:
    raise AssertionError("a learned verbalizer has neither perturbed texts nor a plain black box")
