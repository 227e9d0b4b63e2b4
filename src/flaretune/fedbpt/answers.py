"""What a site tells the server, as plain values; `flare.exchange` turns them into messages and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flaretune.fedbpt.local_search import LocalResult


@dataclass(frozen=True)
class Counters:
    """What an answer cost the site: candidates evaluated, examples × candidates sent through the model, seconds."""

    queries: int
    example_forwards: int
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Counts of a site's evaluation, which add up over sites.

    Attributes:
        dev: counts of the task's metric on the development share, int64 (see `tasks.metrics.count`).
        dev_loss_sum: cross entropy summed over that share.
        dev_size: examples in it.
        test: counts on the site's part of the test data; None at a site that does not evaluate.
    """

    dev: np.ndarray
    dev_loss_sum: float
    dev_size: int
    test: np.ndarray | None


@dataclass(frozen=True)
class SetupAnswer:
    """A site that is ready.

    Attributes:
        settings: what all sites must agree on, and what the artifact needs; plain JSON values.
        n_train: examples the site trains on.
        zero_shot: test counts of the model and the template alone; None at a site that does not evaluate.
        evaluation: of the initial prompt.
        counters: what this cost.
    """

    settings: dict[str, Any]
    n_train: int
    zero_shot: np.ndarray | None
    evaluation: Evaluation
    counters: Counters


@dataclass(frozen=True)
class SearchAnswer:
    """Where a site's search of a round ended, over `n_train` examples.

    Attributes:
        evaluation: of the mean that the round started from, if it was asked for; its forward passes are not
            among the counters' (`seconds` are of both).
    """

    result: LocalResult
    n_train: int
    counters: Counters
    evaluation: Evaluation | None


@dataclass(frozen=True)
class EvaluateAnswer:
    """A site's evaluation of the server's point."""

    evaluation: Evaluation
    counters: Counters
