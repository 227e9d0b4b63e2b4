"""What a site of LP-FL sends of its training where its data is to be protected: its noised adapter, nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flaretune.methods.lpfl.answers import TrainAnswer
from flaretune.privacy.answers import private_counters, private_evaluation
from flaretune.privacy.release import Releases


def private_train(
    answer: TrainAnswer, start: Mapping[str, np.ndarray], releases: Releases, *, public_test: bool
) -> TrainAnswer:
    """Noise an answer; every site counts as one text, so that all have the same weight in the average.

    Args:
        answer: what the site trained.
        start: the arrays that the server sent.
        releases: noises and counts.
        public_test: whether test texts are no secret.

    Raises:
        UserError, FloatingPointError: see `Releases.release`.
    """
    arrays = releases.release(start, answer.arrays)
    return TrainAnswer(
        arrays={name: values.astype(np.float32) for name, values in arrays.items()},
        labelled=1,
        soft_labelled=0,
        soft_labels_right=None,
        loss=0.0,
        counters=private_counters(releases.count),
        evaluation=None if answer.evaluation is None else private_evaluation(answer.evaluation, public_test),
    )
