"""An LP-FL site: its data, the model it trains, and what it does in each task of a job."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flaretune.data.encode import Encoded
from flaretune.errors import UserError
from flaretune.methods.lpfl.answers import LPFLSetupAnswer, TrainAnswer
from flaretune.methods.lpfl.kept_states import KeptStates
from flaretune.methods.lpfl.local_train import TrainingSet, TrainSettings, local_train
from flaretune.methods.lpfl.soft_labels import SoftLabelPool, SoftLabelSettings
from flaretune.models.tuned import TunedModel
from flaretune.seeding import derive_seed
from flaretune.tasks import calibration
from flaretune.tasks.evaluation import (
    Counters,
    EvaluateAnswer,
    Evaluation,
    SetupAnswer,
    count_right,
    cross_entropy_sum,
)

log = logging.getLogger("flaretune.site")


@dataclass(frozen=True)
class Labelled:
    """Encoded texts and their class ids, int64, shape (N,)."""

    texts: Sequence[Encoded]
    labels: np.ndarray


@dataclass(frozen=True)
class SiteTexts:
    """What a site works with.

    Attributes:
        train: T_k, what it is given labels of.
        dev: what rounds are compared on; may be empty.
        test: what accuracy is reported on; None at a site that does not evaluate.
        pool: U_k, encoded texts without labels.
        truth: hidden class ids of the pool, int64, for reporting; None where nobody knows them.
    """

    train: Labelled
    dev: Labelled
    test: Labelled | None
    pool: Sequence[Encoded]
    truth: np.ndarray | None


@dataclass(frozen=True)
class LearnSettings(TrainSettings):
    """How a site learns; the options of these names in `config.LPFLConfig`."""

    soft_labels: str
    seed: int
    calibrate: str = "none"


class LPFLSite:
    """What a site answers to the server's tasks. Knows nothing of NVFlare.

    Args:
        name: of the site.
        tuned: the model that it trains.
        texts: its data.
        settings: how it learns.
        soft_settings: how its pool is labelled.
        states: where the pool's states are kept for whoever takes over.
    """

    def __init__(
        self,
        name: str,
        tuned: TunedModel,
        texts: SiteTexts,
        settings: LearnSettings,
        soft_settings: SoftLabelSettings,
        states: KeptStates,
    ):
        self._name = name
        self._model = tuned.label_model
        self._parameters = tuned.parameters
        self._initial = tuned.initial
        self._spec = tuned.label_model.spec
        self._texts = texts
        self._settings = settings
        self._states = states
        n_pool = len(texts.pool) if settings.soft_labels == "on" else 0
        self._pool = SoftLabelPool(n_pool, self._spec.n_classes, soft_settings)
        self._pool_digest = _digest(texts.pool)

    def calibrate(self, prior: np.ndarray | None) -> None:
        """Divide a prior of the classes, float (C,), out of all answers from now on; None for none."""
        self._model.calibrate(prior)

    def setup(self, agreement: dict[str, Any], after_round: int = 0) -> LPFLSetupAnswer:
        """Begin a job: evaluate the pretrained model, which a new adapter leaves as it is.

        Args:
            agreement: what the sites of a job must agree on.
            after_round: of the run that the job goes on with; 0 for a new one.

        Raises:
            UserError: the job goes on, and what this site has kept of it is damaged.
        """
        self._states.clear(after_round)  # of an earlier job in this folder
        if after_round:
            self._restore(after_round)
        if self._settings.soft_labels == "on" and not len(self._texts.pool):
            log.warning("this site has no unlabelled texts: it learns from its labelled ones alone")
        answer = self._timed_evaluation()
        evaluation = answer.evaluation
        n_train = len(self._texts.train.labels)
        mass = self._mass() if self._settings.calibrate == "batch" else None
        setup = SetupAnswer(agreement, n_train, evaluation.test, evaluation, answer.counters, mass)
        return LPFLSetupAnswer(setup, self._initial)

    def train(self, arrays: Mapping[str, np.ndarray], round_number: int, evaluate: bool) -> TrainAnswer:
        """A round (spec: "A round", steps 2 to 5): take over the global model, label, train, answer.

        Args:
            arrays: of the global model; empty for the initial one.
            round_number: the first is 1. From the second on, texts are labelled by the received model.
            evaluate: whether to evaluate the received model first.

        Raises:
            FloatingPointError: the model's answers or the loss are not finite.
        """
        started, forwards = time.monotonic(), self._model.example_forwards
        self._parameters.load(arrays)
        evaluation = self._evaluation() if evaluate else None
        if evaluate:
            forwards = self._model.example_forwards
        if round_number > 1:
            self._label_texts(round_number)
        data = self._training_set()
        seed = derive_seed(self._settings.seed, "train", round_number, self._name)
        loss, steps = local_train(self._model, self._parameters.trained(), data, self._settings, seed)
        counters = Counters(steps, self._model.example_forwards - forwards, time.monotonic() - started)
        n_soft = len(self._pool.indices)
        return TrainAnswer(
            arrays=self._parameters.arrays(),
            labelled=len(self._texts.train.labels),
            soft_labelled=n_soft,
            soft_labels_right=self._pool.agreement(self._texts.truth)[0] if n_soft and self._knows_truth() else None,
            loss=loss,
            counters=counters,
            evaluation=evaluation,
        )

    def evaluate(self, arrays: Mapping[str, np.ndarray]) -> EvaluateAnswer:
        """Count the global model's right answers on development and test data.

        Raises:
            UserError: arrays are missing, for which this site's own, which it may have to protect, would stand.
        """
        if set(arrays) != set(self._parameters.shapes()):
            raise UserError("the server's message does not have the arrays that are trained here")
        self._parameters.load(arrays)
        return self._timed_evaluation()

    def take_over(self) -> None:
        """Go on where another process of this site stopped."""
        state = self._states.load()
        if state is not None:
            self._take(state)

    def _restore(self, after_round: int) -> None:
        """Go on after a round of an earlier job; the first that labels texts is the second."""
        if self._settings.soft_labels == "off" or not len(self._texts.pool) or after_round < 2:
            return
        state = self._states.load(after_round)
        if state is None:
            log.warning(
                "the job goes on after round %d, and this site has no soft labels of that run: it labels texts anew",
                after_round,
            )
        else:
            self._take(state)

    def _take(self, state: dict[str, np.ndarray]) -> None:
        texts = state.pop("texts", None)
        if not np.array_equal(texts, self._pool_digest):  # with other sites, shares of a common data set are others
            log.warning("the soft labels that this site has kept are those of other texts: it labels texts anew")
            return
        try:
            self._pool.restore(state)
        except ValueError as error:
            raise UserError(
                f"the soft labels that this site has kept are not those of this run ({error}): start anew with another "
                "--checkpoint"
            ) from error

    def _knows_truth(self) -> bool:
        return self._texts.truth is not None

    def _label_texts(self, round_number: int) -> None:
        wanted = self._pool.wanted()
        if len(wanted) == 0:
            return
        logits = self._model.answers([self._texts.pool[i] for i in wanted])
        try:
            self._pool.label(wanted, logits, round_number)
        except ValueError as error:
            raise FloatingPointError(str(error)) from error
        self._states.save(round_number, {**self._pool.state(), "texts": self._pool_digest})

    def _training_set(self) -> TrainingSet:
        train, soft = self._texts.train, self._pool.indices
        return TrainingSet(
            [*train.texts, *(self._texts.pool[i] for i in soft)],
            np.concatenate([np.eye(self._spec.n_classes)[train.labels], self._pool.labels]),
            np.ones(len(train.labels) + len(soft)),
        )

    def _mass(self) -> np.ndarray:
        """Summed probabilities of the classes over this site's texts but the test data, float64 (C,)."""
        return calibration.mass(
            self._model.answers([*self._texts.train.texts, *self._texts.dev.texts, *self._texts.pool])
        )

    def _timed_evaluation(self) -> EvaluateAnswer:
        started, forwards = time.monotonic(), self._model.example_forwards
        evaluation = self._evaluation()
        return EvaluateAnswer(
            evaluation, Counters(0, self._model.example_forwards - forwards, time.monotonic() - started)
        )

    def _evaluation(self) -> Evaluation:
        dev, test = self._texts.dev, self._texts.test
        dev_logits = self._model.answers(dev.texts)
        return Evaluation(
            dev=count_right(self._spec, dev_logits, dev.labels),
            dev_loss_sum=cross_entropy_sum(dev_logits, dev.labels) if len(dev.labels) else 0.0,
            dev_size=len(dev.labels),
            test=None if test is None else count_right(self._spec, self._model.answers(test.texts), test.labels),
        )


def _digest(texts: Sequence[Encoded]) -> np.ndarray:
    """By which it is known again whether labels are those of these texts: sha256 of the tokens, uint8, shape (32,)."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(len(text.ids).to_bytes(8, "little") + text.ids.astype("<i8").tobytes())
    return np.frombuffer(digest.digest(), dtype=np.uint8)
