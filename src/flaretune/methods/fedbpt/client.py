"""The client's side of FedBPT: a black box, texts, and a CMA-ES that searches the soft prompt."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from flaretune.methods.base import Client
from flaretune.methods.client_data import Labelled, settings_of
from flaretune.methods.exchanged import Arrays, EvaluateResult, FitRequest, FitResult, InitializeResult
from flaretune.methods.fedbpt import distribution as wire
from flaretune.methods.fedbpt.cma_es import limit_norm, local_search, within
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.fedbpt.objective import fitness_ratio, loss
from flaretune.methods.message import read_array, read_arrays, readable
from flaretune.models.prompt_settings import ModelFacts
from flaretune.seeding import derive_seed
from flaretune.tasks import calibration
from flaretune.tasks.evaluation import Counters, Evaluation, count_correct, evaluate

if TYPE_CHECKING:
    from flaretune.privacy.release import Releases
    from flaretune.tasks.spec import TaskSpec

log = logging.getLogger("flaretune.client")


class AsksModel(Protocol):
    """The black box, seen from here (`models.black_box.BlackBox` is one)."""

    example_forwards: int

    def label_logits(self, points: np.ndarray, texts: Any) -> np.ndarray:
        """Search points, float (λ, d) → label-word logits, float32 (λ, N, C)."""


class FedBPTClient(Client):
    """A client of FedBPT; see `Client`. Does not know how the model is run.

    Args:
        config: its options.
        name: of the client.
        spec: the task.
        facts: of the model.
        black_box: gives label-word logits.
        train: what fitness is computed on.
        validation: what rounds are compared on; may be empty.
        test: what accuracy is reported on; None at a client that does not evaluate.
        perturbed: makes T̃ anew from a seed (paper, §3.4).
        zero_shot: gives the logits of the model and the template alone on the test texts, float (N, C).
    """

    def __init__(
        self,
        config: FedBPTConfig,
        name: str,
        spec: TaskSpec,
        facts: ModelFacts,
        black_box: AsksModel,
        train: Labelled,
        validation: Labelled,
        test: Labelled | None,
        perturbed: Callable[[int], Any],
        zero_shot: Callable[[], np.ndarray],
    ):
        self.spec, self._config, self._name, self._facts, self._black_box = spec, config, name, facts, black_box
        self._train, self._validation, self._test = train, validation, test
        self._perturbed, self._zero_shot = perturbed, zero_shot
        self._offset = np.zeros(spec.n_classes)

    def calibrate(self, prior: np.ndarray | None) -> None:
        self._offset = np.zeros(self.spec.n_classes) if prior is None else calibration.offset(prior)

    def initialize(self) -> InitializeResult:
        zero_shot = None if self._test is None else count_correct(self.spec, self._zero_shot(), self._test.labels)
        start = np.zeros(self._config.intrinsic_dim)
        evaluated = self.evaluate({"mean": start})
        return InitializeResult(
            settings=settings_of(self._config, self.spec, self._facts.kind, self._facts.hidden_size),
            n_train=len(self._train.labels),
            zero_shot=zero_shot,
            evaluation=evaluated.evaluation,
            counters=evaluated.counters,
            log_probs=self._log_probs(start) if self._config.calibrate == "batch" else None,
            dtype=self._facts.dtype,
        )

    def fit(self, request: FitRequest) -> FitResult:
        """Search from the server's distribution for a round (paper, Algorithm 1)."""
        started = time.monotonic()
        distribution = self._start_of(request)
        evaluation = self._evaluation(distribution.mean) if request.evaluate else None
        forwards = self._black_box.example_forwards
        c = self._config
        found = local_search(
            distribution,
            self._objective(request.round),
            generations=c.local_iter,
            popsize=c.popsize,
            seed=derive_seed(c.seed, "search", request.round),  # the same directions at all clients
            bound=c.bound,
            norm_limit=request.numbers.get("norm_limit"),
        )
        arrays = {
            "mean": found.mean.astype(np.float32),
            "fitness": np.array([found.fitness]),
            "sigma_square_sum": np.array([found.sigma_square_sum]),
        }
        forwards = self._black_box.example_forwards - forwards
        counters = Counters(found.queries, forwards, time.monotonic() - started)
        return FitResult(arrays, {"n_train": len(self._train.labels)}, counters, evaluation)

    def evaluate(self, arrays: Arrays) -> EvaluateResult:
        started, forwards = time.monotonic(), self._black_box.example_forwards
        with readable():
            mean = read_arrays(arrays, {"mean": (self._config.intrinsic_dim,)})["mean"]
        evaluation = self._evaluation(mean.astype(np.float64))
        forwards = self._black_box.example_forwards - forwards
        return EvaluateResult(evaluation, Counters(1, forwards, time.monotonic() - started))

    def noised(self, result: FitResult, request: FitRequest, releases: Releases) -> tuple[dict, dict, int]:
        """The noised mean, and nothing else of the search.

        Fitness would rank the clients, and one number of noise as large as this ranks nothing: it is not sent, and the
        server gives all clients the same weight. The sum of squared step sizes is that of a search that keeps its
        first one.
        """
        start = self._start_of(request)
        z = releases.release({"mean": start.mean}, {"mean": result.arrays["mean"]})["mean"]
        z = limit_norm(within(z, self._config.bound)[None], request.numbers.get("norm_limit"))[0]
        arrays = {
            "mean": z.astype(np.float32),
            "fitness": np.zeros(1),
            "sigma_square_sum": np.array([self._config.local_iter * start.sigma**2]),
        }
        return arrays, {"n_train": 0}, result.counters.queries

    def _start_of(self, request: FitRequest) -> wire.Distribution:
        limit = request.numbers.get("norm_limit")
        with readable():
            if limit is not None and limit <= 0:
                raise ValueError(f"'norm_limit' is {limit:g}, expected a positive number")
            read_array(request.arrays, "mean", (self._config.intrinsic_dim,))
            return wire.unpack(request.arrays)

    def _objective(self, round_number: int) -> Callable[[np.ndarray], np.ndarray]:
        """Search points, float (λ, d) → F_k, float64 (λ,)."""
        c = self._config

        def on(data: Labelled) -> Callable[[np.ndarray], np.ndarray]:
            about = (data.labels, self.spec.metric, self.spec.positive_class)
            return lambda points: loss(c.loss_type, self._logits(points, data), *about)

        plain = on(self._train)
        if not c.perturb:
            return plain
        seed = derive_seed(c.seed, "perturb", round_number, self._name)
        perturbed = on(Labelled(self._perturbed(seed), self._train.labels))
        return lambda points: fitness_ratio(plain(points), perturbed(points))

    def _logits(self, points: np.ndarray, data: Labelled) -> np.ndarray:
        """Scores of the classes behind the prompts of search points, float (λ, d) → (λ, N, C)."""
        return self._black_box.label_logits(points, data.texts) + self._offset

    def _log_probs(self, point: np.ndarray) -> calibration.LogProbSums:
        """Of the classes over this client's texts but the test data, with a search point's prompt, float (d,)."""
        texts = [data.texts for data in (self._train, self._validation) if len(data.labels)]
        logits = [self._black_box.label_logits(point[None], some)[0] for some in texts]
        return calibration.log_prob_sums(np.concatenate(logits))

    def _evaluation(self, point: np.ndarray) -> Evaluation:
        """Of a search point's prompt, float (d,)."""
        return evaluate(self.spec, lambda data: self._logits(point[None], data)[0], self._validation, self._test)
