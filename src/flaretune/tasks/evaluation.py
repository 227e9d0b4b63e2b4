"""What a client's evaluation of a model comes to: counts that add up over clients, and what they cost."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flaretune.aggregation.base import FACTOR, AggregationRule
from flaretune.softmax import check_finite, log_softmax
from flaretune.tasks.metrics.registry import find_metric
from flaretune.tasks.spec import TaskSpec

# No number that a client reports is as large, not a loss by float32 logits either; sums of such are finite.
HUGE = 1e100


def peak_memory_mb() -> float:
    """The most memory that this process has held so far, in MiB."""
    unit = 2**10 if sys.platform != "darwin" else 1  # kilobytes, but bytes on macOS
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


@dataclass(frozen=True)
class Counters:
    """What a result cost the client.

    Attributes:
        queries: candidates evaluated, or training steps made.
        example_forwards: examples sent through the model, as often as they were.
        seconds: of the client's work.
        memory_mb: the most that its process has held so far, in MiB.
        releases: noised results that it has sent in this run so far; 0 where none is noised.
    """

    queries: int
    example_forwards: int
    seconds: float
    memory_mb: float = field(default_factory=peak_memory_mb)
    releases: int = 0


def add_counters(*parts: Mapping[str, Counters]) -> dict[str, Counters]:
    """What several results of each client cost together; of memory and releases, which are of all so far, the most."""
    added: dict[str, Counters] = {}
    for part in parts:
        for client, new in part.items():
            old = added.get(client, Counters(0, 0, 0.0, 0.0))
            added[client] = Counters(
                old.queries + new.queries,
                old.example_forwards + new.example_forwards,
                old.seconds + new.seconds,
                max(old.memory_mb, new.memory_mb),
                max(old.releases, new.releases),
            )
    return added


@dataclass(frozen=True)
class Evaluation:
    """Counts of a client's evaluation, which add up over clients.

    Attributes:
        validation: counts of the task's metric on the client's validation set, int64 (see `tasks.metrics`); float64
            where a rule counts them as fewer.
        validation_loss_sum: cross entropy summed over that set.
        n_validation: examples in it; a fraction likewise.
        test: counts on the client's part of the test data; None at a client without any.
    """

    validation: np.ndarray
    validation_loss_sum: float
    n_validation: float
    test: np.ndarray | None


def limit_evaluations(evaluations: Mapping[str, Evaluation], rule: AggregationRule) -> dict[str, Evaluation]:
    """Evaluations by client, those on far more examples than the others' counted as on so many as the rule allows.

    Clients choose the best round together; none is to choose it alone by what it says of its number of examples.
    """
    factors = rule.limit_sizes(np.array([e.n_validation for e in evaluations.values()]), down_to=FACTOR)
    return {client: _on_fewer(e, by) for (client, e), by in zip(evaluations.items(), factors, strict=True)}


def _on_fewer(evaluation: Evaluation, factor: float) -> Evaluation:
    if factor == 1:
        return evaluation
    return replace(
        evaluation,
        validation=evaluation.validation * factor,  # as they are: of small counts rounding would leave others
        validation_loss_sum=evaluation.validation_loss_sum * factor,
        n_validation=evaluation.n_validation * factor,
    )


def count_correct(spec: TaskSpec, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts of the task's metric for label-word logits, float (N, C), and class ids, int (N,).

    Raises:
        FloatingPointError: see `softmax.check_finite`.
    """
    check_finite(logits)
    return find_metric(spec.metric).count(logits.argmax(axis=-1), labels, spec.positive_class, spec.n_classes)


def cross_entropy_sum(logits: np.ndarray, labels: np.ndarray) -> float:
    """Cross entropy of the softmax over the label words, summed over N examples; logits float (N, C)."""
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].sum())


def evaluate(spec: TaskSpec, logits: Callable[[Any], np.ndarray], validation: Any, test: Any) -> Evaluation:
    """Evaluate a model on a client's data.

    Args:
        spec: the task.
        logits: of the label words for N texts with ``labels``, int64 (N,), N ≥ 1: float (N, C).
        validation: such texts; may be none.
        test: such texts; None at a client that does not evaluate.

    Raises:
        FloatingPointError: see `softmax.check_finite`.
    """

    def on(data: Any) -> tuple[np.ndarray, float]:
        if not len(data.labels):
            return count_correct(spec, np.zeros((0, spec.n_classes)), data.labels), 0.0
        found = logits(data)
        return count_correct(spec, found, data.labels), cross_entropy_sum(found, data.labels)

    counts, loss_sum = on(validation)
    return Evaluation(counts, loss_sum, len(validation.labels), None if test is None else on(test)[0])
