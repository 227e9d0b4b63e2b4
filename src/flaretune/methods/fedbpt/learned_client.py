"""A client of FedBPT whose classes are told by a learned verbalizer.

Round 0 makes one of what the model says behind the task's templates and the untouched prompt. A round's search makes
the loss of the last head small, for which nothing but the prompt moves; then a head is made for where it has led to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flaretune.methods.client_data import settings_of
from flaretune.methods.exchanged import Arrays, EvaluateResult, FitRequest, FitResult, InitializeResult
from flaretune.methods.fedbpt.client import AsksModel, FedBPTClient
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.message import read_array, readable
from flaretune.methods.verbalizer.head import HEAD_STEPS, Head, label_word_head, sent_head
from flaretune.methods.verbalizer.head_steps import HeadSteps, Labelled, WordFeatures
from flaretune.methods.verbalizer.settings import NEUTRAL, Vocabulary
from flaretune.models.prompt_settings import ModelFacts
from flaretune.tasks.evaluation import Counters
from flaretune.tasks.spec import TaskSpec


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
            result, again = super().fit(request), self._asked.new_forwards()  # where this process was started anew
            forwards = result.counters.example_forwards + again
            return replace(result, counters=replace(result.counters, example_forwards=forwards))
        started, before = time.monotonic(), self._black_box.example_forwards
        with readable():
            self._point = read_array(request.arrays, "mean", (self._config.intrinsic_dim,)).astype(np.float64)
        arrays = self._steps.reply(request.step, request.arrays, request.numbers)
        forwards = self._black_box.example_forwards - before + self._asked.new_forwards()
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
        with readable():
            self._head = sent_head(arrays)


def _no_texts(*_: Any) -> Any:
    raise AssertionError("a learned verbalizer has neither perturbed texts nor a plain black box")
