"""Small pools of unlabelled texts, and made-up models that label them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.methods.lpfl.soft_labels import SoftLabelPool

PLAIN = {
    "soft_portion": 0.25,
    "soft_select": "order",
}


def make_pool(n_texts: int, n_classes: int = 2, **changes: Any) -> SoftLabelPool:
    return SoftLabelPool(n_texts, n_classes, LPFLConfig(**{**PLAIN, **changes}))


def model(n_texts: int, n_classes: int = 2, seed: int = 0) -> np.ndarray:
    """Logits of a made-up model for every text of a pool, float32 (n_texts, n_classes)."""
    return np.random.default_rng(seed).normal(scale=2.0, size=(n_texts, n_classes)).astype(np.float32)


def play(pool: SoftLabelPool, logits: np.ndarray, round_number: int) -> list[int]:
    """A round with this model: the texts that moved in it."""
    before = len(pool.indices)
    wanted = pool.wanted()
    pool.label(wanted, logits[wanted], round_number)
    return pool.indices[before:].tolist()


def softmax(row: Any) -> list[float]:
    powers = [math.exp(float(score)) for score in row]
    return [power / sum(powers) for power in powers]
