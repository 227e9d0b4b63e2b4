"""Probabilities of label words, in numpy alone: importing scipy's costs a client 27 MiB."""

from __future__ import annotations

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis, float64."""
    powers = np.exp(_shifted(logits))
    return powers / powers.sum(axis=-1, keepdims=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis, float64."""
    shifted = _shifted(logits)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _shifted(logits: np.ndarray) -> np.ndarray:
    """Float64, the largest of each row 0, so that no power is infinite."""
    logits = np.asarray(logits, dtype=np.float64)
    return logits - logits.max(axis=-1, keepdims=True)
