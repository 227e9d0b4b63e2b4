"""What is left of counters and evaluations where all that depends on a client's data is noised or not sent."""

from __future__ import annotations

import numpy as np

from flaretune.tasks.evaluation import Counters, Evaluation


def private_counters(releases: int, queries: int = 0) -> Counters:
    """Counters without what depends on the number and the length of texts, of which time and memory do too.

    Args:
        releases: noised results so far.
        queries: candidates evaluated, where the options alone say how many.
    """
    return Counters(queries=queries, example_forwards=0, seconds=0.0, memory_mb=0.0, releases=releases)


def private_evaluation(evaluation: Evaluation, public_test: bool) -> Evaluation:
    """Without validation texts, which are the client's; counts on test texts stay where these are public."""
    test = evaluation.test if public_test else None
    return Evaluation(np.zeros_like(evaluation.validation), 0.0, 0, test)
