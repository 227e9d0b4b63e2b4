"""The client's side of LP-FL: its texts, the model that it trains, and its soft labels."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flaretune.config.options import as_dict, build
from flaretune.data.encode import Encoded
from flaretune.data.load import load_texts
from flaretune.errors import UserError
from flaretune.host import give_memory_back
from flaretune.methods.base import Client, ClientContext
from flaretune.methods.client_data import Labelled, load_data, settings_of
from flaretune.methods.exchanged import (
    Arrays,
    CalibrateResult,
    EvaluateResult,
    FitRequest,
    FitResult,
    InitializeResult,
)
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.methods.lpfl.kept_states import KeptStates
from flaretune.methods.lpfl.local_train import local_train
from flaretune.methods.lpfl.lower_rank import LowerRank
from flaretune.methods.lpfl.soft_labels import SoftLabelPool
from flaretune.methods.lpfl.subspace import THETA, Subspace, SubspaceParameters, as_sent
from flaretune.methods.message import read_arrays, readable
from flaretune.models.lora import TuneSettings
from flaretune.models.tuned import TunedModel, open_tuned_model
from flaretune.seeding import derive_seed
from flaretune.tasks import calibration
from flaretune.tasks.evaluation import Counters, Evaluation, evaluate

if TYPE_CHECKING:
    from flaretune.privacy.release import Releases

log = logging.getLogger("flaretune.client")


@dataclass(frozen=True)
class ClientTexts:
    """What a client works with.

    Attributes:
        train: T_k, what it is given labels of.
        validation: what rounds are compared on; may be empty.
        test: what accuracy is reported on; None at a client that does not evaluate.
        pool: U_k, encoded texts without labels.
        truth: hidden class ids of the pool, int64, for reporting; None where nobody knows them.
    """

    train: Labelled
    validation: Labelled
    test: Labelled | None
    pool: Sequence[Encoded]
    truth: np.ndarray | None


class LPFLClient(Client):
    """A client of LP-FL; see `Client`.

    Args:
        config: its options.
        context: where it is.
        tuned: the model that it trains.
        texts: its data.
    """

    def __init__(self, config: LPFLConfig, context: ClientContext, tuned: TunedModel, texts: ClientTexts):
        self._config, self._context, self.tuned, self._texts = config, context, tuned, texts
        self._model, self._parameters = tuned.label_model, tuned.parameters
        if config.subspace_dim:
            self._parameters = SubspaceParameters(tuned.parameters, _subspace(config, tuned))
        if config.client_rank not in (0, config.lora_rank):
            self._parameters = LowerRank(tuned.parameters, tuned.initial, config.client_rank, config.lora_rank)
        self._spec = tuned.label_model.spec
        self._states = KeptStates(context.state_folder)
        self._start: Arrays = {}  # with noise, what a round's training began with
        n_pool = len(texts.pool) if config.soft_labels != "off" else 0
        self._pool = SoftLabelPool(n_pool, self._spec.n_classes, config)
        self._pool_digest = _digest(texts.pool)
        if context.takes_over and (state := self._states.load()) is not None:  # of another process of this client
            self._take(state)

    def calibrate(self, prior: np.ndarray | None) -> None:
        self._model.calibrate(prior)

    def initialize(self) -> InitializeResult:
        """Begin a job: evaluate the pretrained model, which a new adapter leaves as it is.

        Raises:
            UserError: the job resumes a run, and what this client has kept of it is damaged.
        """
        after_round = self._context.after_round
        self._states.clear(after_round)  # of an earlier job in this folder
        if after_round:
            self._restore(after_round)
        if self._config.soft_labels != "off" and not len(self._texts.pool):
            log.warning("this client has no unlabelled texts: it learns from its labelled ones alone")
        evaluated, tuned = self._timed_evaluation(), self.tuned
        shapes = {
            "adapter": tuned.adapter_config or {},
            "initial": {name: list(values.shape) for name, values in tuned.initial.items()},
            "parameters": {name: list(shape) for name, shape in self._parameters.shapes().items()},
            **({"rank": self._config.client_rank} if isinstance(self._parameters, LowerRank) else {}),
        }
        return InitializeResult(
            settings=settings_of(self._config, self._spec, tuned.pretrained.kind, tuned.hidden_size, **shapes),
            n_train=len(self._texts.train.labels),
            zero_shot=evaluated.evaluation.test,
            evaluation=evaluated.evaluation,
            counters=evaluated.counters,
            log_probs=self._log_probs() if self._config.calibrate == "batch" else None,
            dtype=tuned.dtype,
            arrays=tuned.initial,
        )

    def fit(self, request: FitRequest) -> FitResult:
        """A round (spec: "A round", steps 2 to 5).

        Raises:
            UserError: see `_load`.
            FloatingPointError: the model's logits or the loss are not finite.
        """
        started = time.monotonic()
        self._load_start(request.arrays)
        if self._config.dp_noise:
            self._start = self._parameters.arrays()  # the server can have them too, whatever the rank
        evaluation = self._evaluation() if request.evaluate else None
        give_memory_back()  # training, which takes the most, begins without what evaluation has left in pieces
        forwards = self._model.example_forwards
        self._label_texts(request.round)
        train, soft = self._texts.train, self._pool.indices
        examples = [*train.texts, *(self._texts.pool[i] for i in soft)]
        targets = np.concatenate([np.eye(self._spec.n_classes)[train.labels], self._pool.labels])  # (N, C)
        seed = derive_seed(self._config.seed, "train", request.round, self._context.name)
        loss, steps = local_train(self._model, self._parameters, examples, targets, self._config, seed)
        counters = Counters(steps, self._model.example_forwards - forwards, time.monotonic() - started)
        numbers = {"labelled": len(train.labels), "soft_labelled": len(soft), "loss": loss}
        if len(soft) and self._texts.truth is not None:
            numbers["soft_labels_correct"] = self._pool.agreement(self._texts.truth)
        return FitResult(self._parameters.arrays(), numbers, counters, evaluation)

    def log_probs(self, arrays: Arrays) -> CalibrateResult:
        """See `Client.log_probs`.

        Raises:
            UserError: see `_load`.
        """
        started, forwards = time.monotonic(), self._model.example_forwards
        self._load_start(arrays)
        self._model.calibrate(None)
        sums = self._log_probs()
        return CalibrateResult(sums, Counters(0, self._model.example_forwards - forwards, time.monotonic() - started))

    def evaluate(self, arrays: Arrays) -> EvaluateResult:
        """See `Client.evaluate`.

        Raises:
            UserError: see `_load`.
        """
        self._load(arrays)
        return self._timed_evaluation()

    def _load_start(self, arrays: Arrays) -> None:
        """Take what a round starts from: where every parameter is trained, the server knows none at first."""
        if arrays or self.tuned.initial:
            self._load(arrays)

    def _load(self, arrays: Arrays) -> None:
        """Take the server's arrays.

        Raises:
            UserError: they are not those that are trained here: for one that is missing this client's own, which it may
                have to protect, would stand.
        """
        with readable():
            self._parameters.load(read_arrays(arrays, self._parameters.shapes()))

    def noised(self, result: FitResult, request: FitRequest, releases: Releases) -> tuple[dict, dict, int]:
        """The noised adapter, and nothing else: every client counts as one text, for the same weight in the average."""
        arrays = releases.release(self._start, result.arrays)
        noised = {name: self._as_sent(name, values) for name, values in arrays.items()}
        return noised, {"labelled": 1, "soft_labelled": 0, "loss": 0.0}, 0

    def _as_sent(self, name: str, noised: np.ndarray) -> np.ndarray:
        if name == THETA:
            options = f"--dp_clip {self._config.dp_clip:g} and --dp_noise {self._config.dp_noise:g}"
            return as_sent(noised, f"lower ones than {options} may help")
        return noised.astype(np.float32)

    def _restore(self, after_round: int) -> None:
        """Go on after a round of an earlier job; the first that labels texts is the second."""
        if self._config.soft_labels == "off" or not len(self._texts.pool) or after_round < 2:
            return
        state = self._states.load(after_round)
        if state is None:
            log.warning(
                "the job goes on after round %d, and this client has no soft labels of that run: it labels texts anew",
                after_round,
            )
        else:
            self._take(state)

    def _take(self, state: dict[str, np.ndarray]) -> None:
        texts = state.pop("texts", None)
        if not np.array_equal(texts, self._pool_digest):  # with other clients, shares of a common data set are others
            log.warning("the soft labels that this client has kept are those of other texts: it labels texts anew")
            return
        try:
            self._pool.restore(state)
        except ValueError as error:
            raise UserError(
                f"the soft labels that this client has kept are not those of this run ({error}): start anew with "
                "another --checkpoint"
            ) from error

    def _label_texts(self, round_number: int) -> None:
        """By the received model, from the second round on: that of the first is the pretrained one."""
        wanted = self._pool.wanted()
        if len(wanted) == 0 or round_number == 1:
            return
        logits = self._model.predict_logits([self._texts.pool[i] for i in wanted])
        try:
            self._pool.label(wanted, logits, round_number)
        except ValueError as error:
            raise FloatingPointError(str(error)) from error
        self._states.save(round_number, {**self._pool.state(), "texts": self._pool_digest})

    def _log_probs(self) -> calibration.LogProbSums:
        """Of the classes over this client's texts but the test data."""
        return calibration.log_prob_sums(
            self._model.predict_logits([*self._texts.train.texts, *self._texts.validation.texts, *self._texts.pool])
        )

    def _timed_evaluation(self) -> EvaluateResult:
        started, forwards = time.monotonic(), self._model.example_forwards
        evaluation = self._evaluation()
        return EvaluateResult(
            evaluation, Counters(0, self._model.example_forwards - forwards, time.monotonic() - started)
        )

    def _evaluation(self) -> Evaluation:
        predict, texts = self._model.predict_logits, self._texts
        return evaluate(self._spec, lambda data: predict(data.texts), texts.validation, texts.test)


def _subspace(config: LPFLConfig, tuned: TunedModel) -> Subspace:
    shapes = {name: values.shape for name, values in tuned.initial.items()}
    try:
        return Subspace(shapes, config.subspace_dim, config.seed)
    except ValueError as error:
        raise UserError(str(error)) from error


def _digest(texts: Sequence[Encoded]) -> np.ndarray:
    """By which it is known again whether labels are those of these texts: sha256 of the tokens, uint8, shape (32,)."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(len(text.ids).to_bytes(8, "little") + text.ids.astype("<i8").tobytes())
    return np.frombuffer(digest.digest(), dtype=np.uint8)


def open_client(config: LPFLConfig, context: ClientContext, tuned: TunedModel | None = None) -> LPFLClient:
    """See `Method.client`; with a model that is open already, by the same options, the client takes that one."""
    # drawn even where soft labels are off, so that the test data of a client's own file is the same; and of a common
    # data set even where this client has a file of its own, so that it tests on no text that others train on
    wanted = 0 if config.unlabelled_path and config.data_path else config.unlabelled
    spec, data = load_data(config, context, unlabelled=wanted)
    pool = load_texts(spec, config.unlabelled_path) if config.unlabelled_path else data.unlabelled
    if is_own := tuned is None:
        settings = build(TuneSettings, as_dict(config))
        where = {name: getattr(config, name) for name in ("dtype", "device", "batch_size", "cache_mb", "quantize")}
        tuned = open_tuned_model(spec, config.model_name, settings, **where)
    encode = tuned.label_model.encode
    texts = ClientTexts(
        Labelled(encode(data.train.texts), data.train.labels),
        Labelled(encode(data.validation.texts), data.validation.labels),
        None if data.test is None else Labelled(encode(data.test.texts), data.test.labels),
        [] if config.soft_labels == "off" else encode(pool.texts),
        pool.truth,
    )
    return LPFLClient(config, context, tuned.without_tokenizer() if is_own else tuned, texts)
