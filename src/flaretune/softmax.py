"""Probabilities of label words, in numpy alone: importing scipy's costs a client 27 MiB."""

from __future__ import annotations

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis, float64.

    Raises:
        FloatingPointError: see `check_finite`.
    """
    check_finite(logits)
    powers = np.exp(_shifted(logits))
    return powers / powers.sum(axis=-1, keepdims=True)


def check_finite(logits: np.ndarray) -> None:
    """Check logits, float (…, C), of which a class would else be predicted for a text that the model says nothing of.

    Raises:
        FloatingPointError: some are no numbers, or infinite.
    """
    finite = np.isfinite(logits).all(axis=-1)
    if not finite.all():
        raise FloatingPointError(
            f"the model gives logits that are not finite for {finite.size - np.sum(finite)} of {finite.size} texts; "
            "--dtype float32 may help, or another model"
        )


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis, float64."""
    shifted = _shifted(logits)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _shifted(logits: np.ndarray) -> np.ndarray:
    """Float64, the largest of each row 0, so that no power is infinite."""
    logits = np.asarray(logits, dtype=np.float64)
    return logits - logits.max(axis=-1, keepdims=True)
