"""Soft labels: which of a client's unlabelled texts join its training data, and what the received model says of them.

In a round of LP-FL (arXiv 2307.13896) a client asks the model it received about its unlabelled texts U_k and moves a
portion of them, with the model's probabilities as their labels, to the texts it trains on. Which texts go first and
what is done to the probabilities are the choices here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.softmax import softmax


class SoftLabelPool:
    """A client's unlabelled texts, by their index in U_k: which have moved to the training data, and their labels.

    Args:
        n_texts: size of U_k; may be 0.
        n_classes: of the task, at least 2.
        options: say which texts move in a round, and how large a share of the whole pool, rounded, at least one text.
    """

    def __init__(self, n_texts: int, n_classes: int, options: LPFLConfig):
        if n_texts < 0 or n_classes < 2:
            raise ValueError(f"a pool of {n_texts} texts for {n_classes} classes is not possible")
        self._n_texts, self._n_classes, self._options = n_texts, n_classes, options
        self._moved = np.empty(0, dtype=np.int64)
        self._labels = np.empty((0, n_classes))
        self._last_round = -1

    @property
    def indices(self) -> np.ndarray:
        """The texts that have moved, in the order in which they did, int64, shape (M,)."""
        return self._moved.copy()

    @property
    def labels(self) -> np.ndarray:
        """Their soft labels, float64, shape (M, C); rows sum to 1."""
        return self._labels.copy()

    def wanted(self) -> np.ndarray:
        """The texts that have not moved, about which the received model has to be asked, int64, ascending."""
        return np.setdiff1d(np.arange(self._n_texts, dtype=np.int64), self._moved)

    def label(self, indices: np.ndarray, logits: np.ndarray, round_number: int) -> None:
        """Move the next portion, labelled by the received model: q = softmax(s).

        Args:
            indices: what `wanted` gave, shape (N,).
            logits: label-word logits of the received model for these texts, float, shape (N, C).
            round_number: a round moves one portion: called again for it, or for an earlier one, no text moves.

        Raises:
            ValueError: other texts than wanted, or logits that are misshapen or not finite.
        """
        indices, scores = np.asarray(indices), np.asarray(logits, dtype=np.float64)
        if not np.array_equal(indices, self.wanted()):
            raise ValueError(f"the pool wants {len(self.wanted())} texts labelled, but was given others")
        if scores.shape != (len(indices), self._n_classes):
            raise ValueError(
                f"logits of shape {scores.shape} do not fit {len(indices)} texts and {self._n_classes} classes"
            )
        bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        if bad.size:
            raise ValueError(
                f"the model's answer to {bad.size} of {len(indices)} unlabelled texts is not finite (first: text "
                f"{indices[bad[0]]}), so that they cannot be labelled; a lower learning rate may help"
            )
        if indices.size == 0 or round_number <= self._last_round:
            return
        self._last_round = round_number
        scores = scores - scores.max(axis=1, keepdims=True)
        rows = self._choose(scores)
        self._moved = np.concatenate([self._moved, indices[rows]])
        self._labels = np.concatenate([self._labels, softmax(scores[rows])])

    def agreement(self, truth: np.ndarray) -> int:
        """Count labels whose most probable class is the hidden one; for reports.

        Args:
            truth: hidden class ids of the whole pool, int, shape (n_texts,).
        """
        truth = np.asarray(truth)
        if truth.shape != (self._n_texts,):
            raise ValueError(f"hidden labels of shape {truth.shape} do not fit a pool of {self._n_texts} texts")
        return int(np.sum(self._labels.argmax(axis=1) == truth[self._moved]))

    def state(self) -> dict[str, np.ndarray]:
        """What `restore` needs in a process that is started anew with the same settings."""
        return {"moved": self.indices, "labels": self.labels, "last_round": np.array([self._last_round])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over what `state` gave.

        Raises:
            ValueError: it is not one of these classes, or names texts that a pool of this size does not have; the pool
                then stays as it was. Whether they are the same texts is for the caller to know.
        """
        if set(state) != {"moved", "labels", "last_round"}:
            raise ValueError(f"a state of soft labels has moved, labels and last_round, not {sorted(state)}")
        moved, labels, last_round = (np.asarray(state[name]) for name in ("moved", "labels", "last_round"))
        if moved.ndim != 1 or moved.dtype.kind != "i" or len(np.unique(moved)) != len(moved):
            raise ValueError("the moved texts in a state of soft labels must be integers in a row, each once")
        outside = moved[(moved < 0) | (moved >= self._n_texts)]
        if outside.size:
            raise ValueError(f"a state of soft labels names text {outside[0]} of a pool of {self._n_texts}")
        if labels.shape != (len(moved), self._n_classes) or labels.dtype.kind != "f":
            raise ValueError(
                f"soft labels of shape {labels.shape} and type {labels.dtype} are no probabilities of "
                f"{len(moved)} texts and {self._n_classes} classes"
            )
        if not ((labels >= 0).all() and np.allclose(labels.sum(axis=1), 1.0)):  # false for NaN too
            raise ValueError("soft labels in a state must be probabilities that sum to 1 for each text")
        if last_round.shape != (1,) or last_round.dtype.kind != "i":
            raise ValueError("the last round in a state of soft labels must be one integer")
        self._moved, self._labels = moved.astype(np.int64), labels.astype(np.float64)
        self._last_round = int(last_round[0])

    def _choose(self, scores: np.ndarray) -> np.ndarray:
        """Which rows of ``scores`` (of the texts that have not moved, largest 0) move now, in their order."""
        portion = max(1, math.floor(self._options.soft_portion * self._n_texts + 0.5))
        count = min(portion, len(scores))
        if self._options.soft_select == "order":
            return np.arange(count)
        odds = _log_odds(scores)
        if self._options.soft_select == "confident":
            return np.argsort(-odds.max(axis=1), kind="stable")[:count]
        return _balanced(odds, count, first_slot=len(self._moved))


def _log_odds(scores: np.ndarray) -> np.ndarray:
    """log q − log(1 − q) of q = softmax(scores), shape (N, C): ranks as q does, also where q is rounded to 1."""
    odds = np.empty_like(scores)
    for class_id in range(scores.shape[1]):
        others = np.sort(np.delete(scores, class_id, axis=1), axis=1)  # sorted: equal sets of scores tie exactly
        odds[:, class_id] = scores[:, class_id] - np.logaddexp.reduce(others, axis=1)
    return odds


def _balanced(odds: np.ndarray, count: int, first_slot: int) -> np.ndarray:
    """Rows of ``odds``, (N, C), dealt to the classes in turn: each takes the row left that is most probably its own.

    So a class that is predicted for no text takes its share too, as in iPET (arXiv 2001.07676). Slots are numbered
    on from the texts moved before, so that over the rounds too the classes' counts differ by 1 at most.
    """
    n_classes = odds.shape[1]
    queues = [iter(np.argsort(-odds[:, class_id], kind="stable").tolist()) for class_id in range(n_classes)]
    chosen: dict[int, None] = {}  # in order
    for slot in range(first_slot, first_slot + count):
        chosen[next(row for row in queues[slot % n_classes] if row not in chosen)] = None
    return np.array(list(chosen), dtype=np.int64)
