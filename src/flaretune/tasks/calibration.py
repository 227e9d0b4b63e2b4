"""Calibration without labels: a model's preference for some label words is divided out.

A model gives some label words a high probability whatever the text. What it gives them over many texts, whose labels
nobody needs to know, is taken for that preference, p̄(y), and a text's class is argmax p(y | x) / p̄(y), as in batch
calibration (Zhou et al., arXiv 2309.17249). There p̄ is the mean of the probabilities; here it is their geometric mean,
brought to sum to one: with two classes, the mean of the log-odds is subtracted. docs/benchmarks.md compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flaretune.softmax import check_finite, log_softmax, softmax

LEAST = 1e-6  # so that a word which a model never gives stays comparable, and no text outweighs all others
ROUNDING = 1e-9  # of sums, per text


@dataclass(frozen=True, eq=False)
class LogProbSums:
    """Log-probabilities of the classes over texts, as they add up over clients.

    Attributes:
        sums: summed over the texts, float64 (C,).
        n_texts: of how many.
    """

    sums: np.ndarray
    n_texts: int

    def is_plausible(self) -> bool:
        """Whether texts can have these: no mean outside log `LEAST` … 0, and geometric means sum to 1 at the most."""
        if self.n_texts < 1:
            return False
        means = self.sums / self.n_texts
        within = means.min() >= np.log(LEAST) - ROUNDING and means.max() <= ROUNDING
        return bool(within and np.exp(means).sum() <= 1 + len(means) * LEAST + ROUNDING)


def log_prob_sums(logits: np.ndarray) -> LogProbSums:
    """Of label-word logits, float (N, C); no probability counts as less than `LEAST`.

    Raises:
        FloatingPointError: a logit is not finite.
    """
    check_finite(logits)
    return LogProbSums(np.maximum(log_softmax(logits), np.log(LEAST)).sum(axis=0), len(logits))


def prior(clients: Sequence[LogProbSums], weights: Sequence[float]) -> np.ndarray:
    """p̄ over the texts of several clients, each text of a client with the client's weight, float64 (C,)."""
    total = sum(weight * client.sums for weight, client in zip(weights, clients, strict=True))
    return softmax(total / sum(weight * client.n_texts for weight, client in zip(weights, clients, strict=True)))


def offset(prior: np.ndarray) -> np.ndarray:
    """What is added to the label words' logits, float64 (C,): − log p̄ (there, equation 2, up to a constant)."""
    return -np.log(np.maximum(np.asarray(prior, dtype=np.float64), LEAST))
