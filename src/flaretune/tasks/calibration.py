"""Batch calibration (Zhou et al., arXiv 2309.17249): a model's preference for some label words is divided out.

A model gives some label words a high probability whatever the text. Their mean probabilities over many texts, whose
labels nobody needs to know, are taken for that preference, p̄(y), and a text's class is argmax p(y | x) / p̄(y).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flaretune.softmax import softmax

LEAST = 1e-6  # so that a word which a model never gives stays comparable


def mass(logits: np.ndarray) -> np.ndarray:
    """Summed probabilities of the classes over texts: label-word logits, float (N, C), to float64 (C,).

    Its sum is the number of texts, so that masses of several clients add up.
    """
    return softmax(logits).sum(axis=0)


def prior(masses: Sequence[np.ndarray]) -> np.ndarray:
    """p̄ over the texts of several clients, float64 (C,)."""
    total = np.sum(masses, axis=0)
    return total / total.sum()


def offset(prior: np.ndarray) -> np.ndarray:
    """What is added to the label words' logits, float64 (C,): − log p̄ (there, equation 2, up to a constant)."""
    return -np.log(np.maximum(np.asarray(prior, dtype=np.float64), LEAST))
