"""The client's side of the learned verbalizer: one pass over its texts, and sums over what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flaretune.methods.base import Client, ClientContext
from flaretune.methods.client_data import load_data, settings_of
from flaretune.methods.exchanged import Arrays, EvaluateResult, FitRequest, FitResult, InitializeResult
from flaretune.methods.message import readable
from flaretune.methods.served_model import vllm_server
from flaretune.methods.verbalizer.config import VerbalizerConfig
from flaretune.methods.verbalizer.head import SUMS, Head, head_of, label_word_head
from flaretune.methods.verbalizer.head_steps import AskedTexts, AsksForWords, HeadSteps, WordFeatures
from flaretune.methods.verbalizer.settings import NEUTRAL, Vocabulary
from flaretune.methods.verbalizer.statistics import release_sums
from flaretune.tasks.evaluation import Counters, Evaluation, evaluate
from flaretune.tasks.spec import Kind, TaskSpec

if TYPE_CHECKING:
    from flaretune.data.load import Examples
    from flaretune.privacy.release import Releases

log = logging.getLogger("flaretune.client")


@dataclass(frozen=True)
class ModelFacts:
    """What a client tells of its model: see `client_data.settings_of` and `InitializeResult.dtype`."""

    kind: Kind
    hidden_size: int
    dtype: str


class VerbalizerClient(Client):
    """A client of a verbalizer job; see `Client`. Does not know how the model is run.

    Args:
        config: its options.
        spec: the task.
        facts: of the model.
        templates: that are asked with.
        vocabulary: of the model.
        model: gives log-probabilities of words.
        train, validation: labelled texts; validation may be empty.
        test: what accuracy is reported on; None at a client that does not evaluate.
    """

    def __init__(
        self,
        config: VerbalizerConfig,
        spec: TaskSpec,
        facts: ModelFacts,
        templates: Sequence[str],
        vocabulary: Vocabulary,
        model: AsksForWords,
        train: Examples,
        validation: Examples,
        test: Examples | None,
    ):
        self._config, self._spec, self._facts, self._templates = config, spec, facts, list(templates)
        self._vocabulary, self._model = vocabulary, model
        self._train, self._validation = (AskedTexts(data.texts, data.labels) for data in (train, validation))
        self._test = None if test is None else AskedTexts(test.texts, test.labels, counts=False)
        self._start = label_word_head(vocabulary.label_ids, spec.n_classes)
        self._features = WordFeatures(model, vocabulary.candidates, len(templates))
        self._steps = HeadSteps(
            self._features.log_probs,
            self._train,
            self._validation,
            spec.n_classes,
            len(templates),
            private=bool(config.dp_noise),
        )

    def calibrate(self, prior: np.ndarray | None) -> None:
        """Nothing to do: `--calibrate` is refused, since a head has its own bias."""

    def initialize(self) -> InitializeResult:
        started = time.monotonic()
        evaluation = self._evaluation(self._start)
        facts, v = self._facts, self._vocabulary
        return InitializeResult(
            settings=settings_of(
                self._config, self._spec, facts.kind, facts.hidden_size, **v.settings(self._templates)
            ),
            n_train=len(self._train.labels),
            zero_shot=evaluation.test if v.label_ids else None,
            evaluation=evaluation,
            counters=Counters(0, self._model.example_forwards, time.monotonic() - started),
            dtype=facts.dtype,
            arrays={NEUTRAL: v.neutral},
        )

    def fit(self, request: FitRequest) -> FitResult:
        """One of the three small messages (see `methods.verbalizer`)."""
        started = time.monotonic()
        evaluation = self._evaluation(self._start) if request.evaluate else None
        arrays = self._steps.reply(request.step, request.arrays, request.numbers)
        counters = Counters(0, self._features.new_forwards(), time.monotonic() - started)
        return FitResult(arrays, {"n_train": len(self._train.labels)}, counters, evaluation)

    def evaluate(self, arrays: Arrays) -> EvaluateResult:
        started, before = time.monotonic(), self._model.example_forwards
        with readable():
            head = head_of(arrays) if arrays else self._start
        evaluation = self._evaluation(head)
        forwards = self._model.example_forwards - before
        return EvaluateResult(evaluation, Counters(1, forwards, time.monotonic() - started))

    def noised(self, result: FitResult, request: FitRequest, releases: Releases) -> tuple[dict, dict, int]:
        """The noised sums, and nothing of the texts in the other steps.

        Words are then the label words and those most probable of any text, and shrinkage follows from the noise.
        """
        if request.step != SUMS:
            return {name: np.zeros_like(values) for name, values in result.arrays.items()}, {"n_train": 0}, 0
        most = self._config.k_shot * self._spec.n_classes
        return release_sums(releases, result.arrays, most), {"n_train": 0}, 0

    def _evaluation(self, head: Head) -> Evaluation:
        def logits(data: AskedTexts) -> np.ndarray:
            return head.logits(self._features.log_probs(data, head.words))

        return evaluate(self._spec, logits, self._validation, self._test)


def open_client(config: VerbalizerConfig, context: ClientContext) -> VerbalizerClient:
    """See `Method.client`."""
    spec, data = load_data(config, context)
    # torch and transformers take seconds to import: only now that NVFlare knows this process
    from flaretune.methods.verbalizer.open import open_vllm_words, open_words

    if config.uses_vllm:
        words, _ = open_vllm_words(vllm_server(config, by_name=True), spec, config.model_name, config.dtype)
    else:
        words = open_words(spec, config.model_name, config.dtype, config.device, config.batch_size, config.quantize)
    return VerbalizerClient(
        config,
        spec,
        ModelFacts(words.kind, words.hidden_size, words.dtype),
        words.templates,
        words.vocabulary(),
        words.log_probs,
        data.train,
        data.validation,
        data.test,
    )
