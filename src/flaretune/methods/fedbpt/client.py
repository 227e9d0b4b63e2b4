"""A FedBPT site: its data, the black box it asks, and what it does in each task of a job."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from flaretune.methods.fedbpt.answers import SearchAnswer
from flaretune.methods.fedbpt.distribution import Distribution
from flaretune.methods.fedbpt.local_search import local_search
from flaretune.methods.fedbpt.objective import fitness_ratio, loss
from flaretune.seeding import derive_seed
from flaretune.tasks import calibration, metrics
from flaretune.tasks.evaluation import (
    Counters,
    EvaluateAnswer,
    Evaluation,
    SetupAnswer,
    count_right,
    cross_entropy_sum,
)
from flaretune.tasks.spec import TaskSpec


class Asks(Protocol):
    """The black box, seen from here (`models.black_box.BlackBox` is one)."""

    example_forwards: int

    def label_logits(self, points: np.ndarray, texts: Any) -> np.ndarray:
        """Points, float (λ, d) → label-word logits, float32 (λ, N, C)."""


@dataclass(frozen=True)
class Labelled:
    """Texts registered with the black box and their class ids, int64, shape (N,)."""

    texts: Any
    labels: np.ndarray


@dataclass(frozen=True)
class SearchSettings:
    """How a site searches; the options of the same names in `config.FedBPTConfig`."""

    local_iter: int
    popsize: int
    loss_type: str
    bound: float
    intrinsic_dim: int
    seed: int
    calibrate: str = "none"


class FedBPTSite:
    """What a site answers to the server's tasks. Knows neither NVFlare nor how the model is run.

    Args:
        name: of the site.
        spec: the task, for its metric.
        black_box: answers with label-word logits.
        train: what fitness is computed on.
        dev: what prompts are compared on; may be empty.
        test: what accuracy is reported on; None at a site that does not evaluate.
        perturbed: makes T̃ anew from a seed, or None to search without perturbation (paper, §3.4).
        settings: how to search.
    """

    def __init__(
        self,
        name: str,
        spec: TaskSpec,
        black_box: Asks,
        train: Labelled,
        dev: Labelled,
        test: Labelled | None,
        perturbed,
        settings: SearchSettings,
    ):
        self.spec = spec
        self._name = name
        self._black_box = black_box
        self._train = train
        self._dev = dev
        self._test = test
        self._perturbed = perturbed
        self._settings = settings
        self._offset = np.zeros(spec.n_classes)

    def calibrate(self, prior: np.ndarray | None) -> None:
        """Divide a prior of the classes, float (C,), out of all answers from now on; None for none."""
        self._offset = np.zeros(self.spec.n_classes) if prior is None else calibration.offset(prior)

    def setup(self, agreement: dict[str, Any], zero_shot_logits: np.ndarray | None) -> SetupAnswer:
        """Evaluate the initial prompt, and report what the sites of a job must agree on."""
        zero_shot = None
        if zero_shot_logits is not None:
            zero_shot = count_right(self.spec, zero_shot_logits, self._test.labels)
        start = np.zeros(self._settings.intrinsic_dim)
        answer = self.evaluate(start)
        mass = self._mass(start) if self._settings.calibrate == "batch" else None
        return SetupAnswer(agreement, len(self._train.labels), zero_shot, answer.evaluation, answer.counters, mass)

    def search(
        self, distribution: Distribution, round_number: int, evaluate: bool, norm_limit: float | None = None
    ) -> SearchAnswer:
        """Search from the server's distribution for a round (paper, Algorithm 1).

        Args:
            distribution: where to start.
            round_number: the first is 1.
            evaluate: whether to evaluate its mean first.
            norm_limit: the longest that a searched vector may be; None for no limit.
        """
        started = time.monotonic()
        evaluation = self.evaluate(distribution.mean).evaluation if evaluate else None
        forwards = self._black_box.example_forwards
        s = self._settings
        result = local_search(
            distribution,
            self._objective(round_number),
            generations=s.local_iter,
            popsize=s.popsize,
            seed=self._search_seed(round_number),
            bound=s.bound,
            norm_limit=norm_limit,
        )
        counters = Counters(result.queries, self._black_box.example_forwards - forwards, time.monotonic() - started)
        return SearchAnswer(result, len(self._train.labels), counters, evaluation)

    def evaluate(self, point: np.ndarray) -> EvaluateAnswer:
        """Count right answers of a point's prompt, float (d,), on development and test data."""
        started, forwards = time.monotonic(), self._black_box.example_forwards
        dev_counts, dev_loss = self._evaluate_on(point, self._dev)
        test_counts = None if self._test is None else self._evaluate_on(point, self._test)[0]
        evaluation = Evaluation(dev_counts, dev_loss, len(self._dev.labels), test_counts)
        counters = Counters(1, self._black_box.example_forwards - forwards, time.monotonic() - started)
        return EvaluateAnswer(evaluation, counters)

    def _objective(self, round_number: int):
        s = self._settings

        def on(data: Labelled):
            return lambda points: loss(
                s.loss_type,
                self._black_box.label_logits(points, data.texts) + self._offset,
                data.labels,
                self.spec.metric,
                self.spec.positive_class,
            )

        plain = on(self._train)
        if self._perturbed is None:
            return plain
        seed = derive_seed(s.seed, "perturb", round_number, self._name)
        perturbed = on(Labelled(self._perturbed(seed), self._train.labels))
        return lambda points: fitness_ratio(plain(points), perturbed(points))

    def _search_seed(self, round_number: int) -> int:
        return derive_seed(self._settings.seed, "search", round_number)

    def _mass(self, point: np.ndarray) -> np.ndarray:
        """Summed probabilities of the classes over this site's texts but the test data, float64 (C,)."""
        texts = [data.texts for data in (self._train, self._dev) if len(data.labels)]
        return sum(calibration.mass(self._black_box.label_logits(point[None], some)[0]) for some in texts)

    def _evaluate_on(self, point: np.ndarray, data: Labelled) -> tuple[np.ndarray, float]:
        """Counts of the metric and summed cross entropy."""
        if len(data.labels) == 0:
            return metrics.count(self.spec.metric, data.labels, data.labels, self.spec.positive_class), 0.0
        logits = self._black_box.label_logits(point[None], data.texts)[0] + self._offset
        return count_right(self.spec, logits, data.labels), cross_entropy_sum(logits, data.labels)
