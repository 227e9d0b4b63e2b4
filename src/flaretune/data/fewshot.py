"""k examples per class for training and k others for validation (few-shot as in LM-BFF and BBT)."""

from __future__ import annotations

import numpy as np

from flaretune.errors import UserError


def few_shot(labels: np.ndarray, k: int, n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a training and a development set of k examples per class each, with no example in common.

    Args:
        labels: class ids, shape (N,).
        k: examples of each class in each of the two sets.
        n_classes: classes have ids 0 … n_classes − 1.
        seed: equal seeds give equal draws.

    Returns:
        Indices into ``labels`` for training and for validation, int64, each of shape (k · n_classes,),
        ascending.

    Raises:
        UserError: k < 1, or a class with fewer than 2k examples.
    """
    if k < 1:
        raise UserError(f"k = {k} examples per class is not possible; choose at least 1")
    labels = np.asarray(labels)
    counts = [int(np.sum(labels == class_id)) for class_id in range(n_classes)]
    scarcest = int(np.argmin(counts))
    if counts[scarcest] < 2 * k:
        largest = counts[scarcest] // 2
        remedy = f"the largest k that fits is {largest}" if largest else "add examples of that class"
        raise UserError(
            f"k = {k} examples per class for training and as many for validation need {2 * k} of every class, "
            f"but class {scarcest} has {counts[scarcest]}; {remedy}"
        )
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(labels == class_id))[: 2 * k] for class_id in range(n_classes)]
    train = np.concatenate([indices[:k] for indices in drawn])
    development = np.concatenate([indices[k:] for indices in drawn])
    return np.sort(train), np.sort(development)
