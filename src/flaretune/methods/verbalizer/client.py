"""The client's side of the learned verbalizer: one pass over its texts, and sums over what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from flaretune.errors import UserError
from flaretune.methods.base import (
    Arrays,
    Client,
    ClientContext,
    EvaluateResult,
    FitRequest,
    FitResult,
    InitializeResult,
)
from flaretune.methods.client_data import load_data, settings_of
from flaretune.methods.message import unreadable
from flaretune.methods.verbalizer.config import ROUNDS, SUMS_ROUND, VerbalizerConfig
from flaretune.methods.verbalizer.head import Head, head_of, label_word_head
from flaretune.methods.verbalizer.private import clipped, release_sums
from flaretune.methods.verbalizer.ridge import TEMPERATURES, leave_one_out, losses
from flaretune.methods.verbalizer.settings import Vocabulary
from flaretune.methods.verbalizer.statistics import gram_sums, word_statistics
from flaretune.tasks.evaluation import Counters, Evaluation, count_correct, cross_entropy_sum
from flaretune.tasks.spec import Kind, TaskSpec

if TYPE_CHECKING:
    from flaretune.data.load import Examples
    from flaretune.privacy.release import Releases

log = logging.getLogger("flaretune.client")


class AsksForWords(Protocol):
    """The model, seen from here (`models.word_log_probs.WordLogProbs` is one)."""

    example_forwards: int

    def __call__(self, texts: Sequence[Mapping[str, str]], token_ids: np.ndarray) -> np.ndarray:
        """Log-probabilities of chosen words: N texts, ids (V,) → float32 (N, T, V) for T templates."""


@dataclass(frozen=True)
class ModelFacts:
    """What a client tells of its model: see `client_data.settings_of` and `InitializeResult.dtype`."""

    kind: Kind
    hidden_size: int
    dtype: str


@dataclass(eq=False)
class Labelled:
    """Texts, class ids, int64 (N,), and what the model has said of them.

    Attributes:
        ids: token ids of the log-probabilities that are kept, int64 (V,).
        log_probs: float32 (N, T, V); None before the pass.
    """

    texts: Sequence[Mapping[str, str]]
    labels: np.ndarray
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    log_probs: np.ndarray | None = None


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
        self._train, self._validation = (
            Labelled(train.texts, train.labels),
            Labelled(validation.texts, validation.labels),
        )
        self._test = None if test is None else Labelled(test.texts, test.labels)
        self._start = label_word_head(vocabulary.label_ids, spec.n_classes)
        self._forwards_told = 0  # of the passes over labelled texts but the test data
        self._forwards = model.example_forwards

    def calibrate(self, prior: np.ndarray | None) -> None:
        """Nothing to do: `--calibrate` is refused, since a head has its own bias."""

    def initialize(self) -> InitializeResult:
        started = time.monotonic()
        evaluation = self._evaluation(self._start)
        v = self._vocabulary
        settings = settings_of(
            self._config,
            self._spec,
            self._facts.kind,
            self._facts.hidden_size,
            initial={"neutral": list(v.neutral.shape)},
            verbalizer={"templates": self._templates, "label_ids": v.label_ids},
            candidates=[[int(token), text] for token, text in zip(v.candidates, v.texts, strict=True)],
        )
        return InitializeResult(
            settings=settings,
            n_train=len(self._train.labels),
            zero_shot=evaluation.test if v.label_ids else None,
            evaluation=evaluation,
            counters=Counters(len(self._templates), self._model.example_forwards, time.monotonic() - started),
            dtype=self._facts.dtype,
            arrays={"neutral": v.neutral},
        )

    def fit(self, request: FitRequest) -> FitResult:
        """One of the three small messages (see `methods.verbalizer`)."""
        started = time.monotonic()
        evaluation = self._evaluation(self._start) if request.evaluate else None
        steps = {1: self._word_statistics, SUMS_ROUND: self._gram_sums, ROUNDS: self._losses}
        try:
            arrays = steps[request.round](request.arrays, request.numbers)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            raise unreadable(ValueError(f"{type(error).__name__}: {error}")) from error
        counters = Counters(len(self._templates), self._new_forwards(), time.monotonic() - started)
        return FitResult(arrays, {"n_train": len(self._train.labels)}, counters, evaluation)

    def evaluate(self, arrays: Arrays) -> EvaluateResult:
        started, before = time.monotonic(), self._model.example_forwards
        try:
            head = head_of(arrays) if arrays else self._start
        except (ValueError, TypeError) as error:
            raise unreadable(ValueError(str(error))) from error
        evaluation = self._evaluation(head)
        forwards = self._model.example_forwards - before
        return EvaluateResult(evaluation, Counters(1, forwards, time.monotonic() - started))

    def noised(self, result: FitResult, request: FitRequest, releases: Releases) -> tuple[dict, dict, int]:
        """The noised sums of round 2, and nothing of the texts in the other rounds.

        Words are then those that are most probable of any text, and shrinkage follows from the noise.
        """
        if request.round != SUMS_ROUND:
            return {name: np.zeros_like(values) for name, values in result.arrays.items()}, {"n_train": 0}, 0
        most = self._config.k_shot * self._spec.n_classes
        return release_sums(releases, result.arrays, most), {"n_train": 0}, 0

    # ---- the three rounds ----

    def _word_statistics(self, arrays: Arrays, numbers: Mapping[str, Any]) -> dict[str, np.ndarray]:
        tokens = arrays["candidates"].astype(np.int64)  # (V,)
        pairs = [(template, token) for template in range(len(self._templates)) for token in tokens]
        features = self._log_probs(self._train, np.array(pairs, dtype=np.int64).reshape(-1, 2))
        return word_statistics(features, self._train.labels, self._spec.n_classes).arrays()

    def _gram_sums(self, arrays: Arrays, numbers: Mapping[str, Any]) -> dict[str, np.ndarray]:
        features = self._features(self._train, arrays)
        if self._config.dp_noise:
            features = clipped(features)
        return gram_sums(features, self._train.labels, self._spec.n_classes).arrays()

    def _losses(self, arrays: Arrays, numbers: Mapping[str, Any]) -> dict[str, np.ndarray]:
        data = self._train if numbers["leave_one_out"] else self._validation
        weights, biases = arrays["weights"], arrays["biases"]  # (L, F, C), (L, C)
        if self._config.dp_noise or not len(data.labels):  # with noise, nothing but the sums is told
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

    # ---- what the model says ----

    def _log_probs(self, data: Labelled, words: np.ndarray) -> np.ndarray:
        """Log-probabilities of words, int64 (F, 2) as in `Head.words`, float32 (N, F).

        The model is asked once; again only for words that no candidate of this client was, which happens where another
        client's numbers differ a little.
        """
        if not len(data.labels) or not len(words):
            return np.zeros((len(data.labels), len(words)), dtype=np.float32)
        missing = np.setdiff1d(words[:, 1], data.ids)
        if data.log_probs is None or len(missing):
            wanted = np.union1d(np.union1d(data.ids, self._vocabulary.candidates), missing)
            data.log_probs, data.ids = self._model(data.texts, wanted), wanted
            if data is not self._test:
                self._forwards += len(data.labels) * len(self._templates)
        return data.log_probs[:, words[:, 0], np.searchsorted(data.ids, words[:, 1])]

    def _new_forwards(self) -> int:
        new, self._forwards_told = self._forwards - self._forwards_told, self._forwards
        return new

    def _evaluation(self, head: Head) -> Evaluation:
        """Counts of a head on validation and test data."""
        counts, loss_sum = self._evaluate_on(head, self._validation)
        test = None if self._test is None else self._evaluate_on(head, self._test)[0]
        return Evaluation(counts, loss_sum, len(self._validation.labels), test)

    def _evaluate_on(self, head: Head, data: Labelled) -> tuple[np.ndarray, float]:
        if not len(data.labels):
            return count_correct(self._spec, np.zeros((0, self._spec.n_classes)), data.labels), 0.0
        logits = head.logits(self._log_probs(data, head.words))
        return count_correct(self._spec, logits, data.labels), cross_entropy_sum(logits, data.labels)


def open_client(config: VerbalizerConfig, context: ClientContext) -> VerbalizerClient:
    """Load data and model.

    Raises:
        UserError: whatever the user can correct.
    """
    spec, data = load_data(config, context)
    # torch and transformers take seconds to import: only now that NVFlare knows this process
    from flaretune.methods.verbalizer.open import open_words

    words = open_words(spec, config.model_name, config.dtype, config.device, config.batch_size)
    return VerbalizerClient(
        config,
        spec,
        ModelFacts(words.kind, words.hidden_size, words.dtype),
        words.templates,
        words.vocabulary(config.n_candidates),
        words.log_probs,
        data.train,
        data.validation,
        data.test,
    )
