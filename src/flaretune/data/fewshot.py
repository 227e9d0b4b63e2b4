"""k examples per class for training and k others for validation (few-shot as in LM-BFF and BBT)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flaretune.errors import UserError


def few_shot(labels: np.ndarray, k: int, raw_labels: Sequence[int | str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a training and a validation set of k examples per class each, with no example in common.

    Args:
        labels: class ids, shape (N,).
        k: examples of each class in each of the two sets.
        raw_labels: of the classes 0 … C − 1, as the data has them.
        seed: equal seeds give equal draws.

    Returns:
        Indices into ``labels`` for training and for validation, int64, each of shape (k · C,), ascending.

    Raises:
        UserError: k < 1, or a class with fewer than 2k examples.
    """
    if k < 1:
        raise UserError(f"--k_shot {k}: must be at least 1")
    labels, class_ids = np.asarray(labels), range(len(raw_labels))
    counts = [int(np.sum(labels == class_id)) for class_id in class_ids]
    scarcest = int(np.argmin(counts))
    if counts[scarcest] < 2 * k:
        most = counts[scarcest] // 2
        remedy = f"use at most {most}" if most else "add texts with it"
        raise UserError(
            f"--k_shot {k}: takes {k} texts with each label for training and as many for validation, and only "
            f"{counts[scarcest]} have the label {raw_labels[scarcest]!r}; {remedy}"
        )
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(labels == class_id))[: 2 * k] for class_id in class_ids]
    train = np.concatenate([indices[:k] for indices in drawn])
    validation = np.concatenate([indices[k:] for indices in drawn])
    return np.sort(train), np.sort(validation)
