"""What clients and server of any method exchange, once it is read from messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flaretune.tasks.calibration import LogProbSums
from flaretune.tasks.evaluation import Counters, Evaluation

Arrays = Mapping[str, np.ndarray]
Numbers = Mapping[str, int | float]


@dataclass(frozen=True, eq=False)
class InitializeResult:
    """A client that is ready.

    Attributes:
        settings: what all clients must agree on, and what the artifact needs; plain JSON values.
        n_train: labelled examples that the client trains on.
        zero_shot: test counts of the model and the template alone; None at a client that does not evaluate.
        evaluation: of where the job starts.
        counters: what this cost.
        log_probs: of the classes over its texts, from which the prior is made; None without `--calibrate`.
        dtype: what its model computes in; None if it does not tell.
        arrays: what the method starts from, of the shapes in ``settings["initial"]``.
    """

    settings: dict[str, Any]
    n_train: int
    zero_shot: np.ndarray | None
    evaluation: Evaluation
    counters: Counters
    log_probs: LogProbSums | None = None
    dtype: str | None = None
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class FitRequest:
    """What a client starts a round, or a step of it, from.

    Attributes:
        round: the first is 1; 0 where the start itself takes steps.
        arrays: of the method, by name.
        numbers: of the method, by name.
        evaluate: whether what is sent is to be evaluated first.
        step: one of `Strategy.steps`.
    """

    round: int
    arrays: Arrays
    numbers: Numbers
    evaluate: bool
    step: str = ""


@dataclass(frozen=True, eq=False)
class FitResult:
    """What a client's round came to.

    Attributes:
        arrays: of the method, by name.
        numbers: of the method, by name; what does not apply is left out.
        counters: what it cost.
        evaluation: of what the server sent; None if it was not asked for.
    """

    arrays: dict[str, np.ndarray]
    numbers: dict[str, int | float]
    counters: Counters
    evaluation: Evaluation | None = None


@dataclass(frozen=True, eq=False)
class CalibrateResult:
    """What the prior of a model that the server sent is made from; nothing is evaluated."""

    log_probs: LogProbSums
    counters: Counters
    evaluation: None = None


@dataclass(frozen=True, eq=False)
class EvaluateResult:
    """A client's evaluation of what the server sent."""

    evaluation: Evaluation
    counters: Counters
