"""What is left of a site's answers where everything that depends on its data must be noised or not be sent."""

from __future__ import annotations

import numpy as np

from flaretune.tasks.evaluation import Counters, EvaluateAnswer, Evaluation, SetupAnswer


def private_counters(releases: int, queries: int = 0) -> Counters:
    """Counters without what depends on the number and the length of texts, of which time and memory do too.

    Args:
        releases: noised answers so far.
        queries: candidates asked about, where the options alone say how many.
    """
    return Counters(queries=queries, example_forwards=0, seconds=0.0, memory_mb=0.0, releases=releases)


def private_evaluation(evaluation: Evaluation, public_test: bool) -> Evaluation:
    """Without development texts, which are the site's; counts on test texts stay where these are public."""
    test = evaluation.test if public_test else None
    return Evaluation(np.zeros_like(evaluation.validation), 0.0, 0, test)


def private_setup(answer: SetupAnswer, public_test: bool, releases: int) -> SetupAnswer:
    """Every field is named, so that one that is added does not slip through."""
    return SetupAnswer(
        settings=answer.settings,
        n_train=0,
        zero_shot=answer.zero_shot if public_test else None,
        evaluation=private_evaluation(answer.evaluation, public_test),
        counters=private_counters(releases),
        mass=None,
        dtype=answer.dtype,
    )


def private_evaluate(answer: EvaluateAnswer, public_test: bool, releases: int) -> EvaluateAnswer:
    return EvaluateAnswer(private_evaluation(answer.evaluation, public_test), private_counters(releases))
