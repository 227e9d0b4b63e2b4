"""Soft labels: which of a site's unlabelled texts join its training data, and what the received model says of them.

In a round of LP-FL (arXiv 2307.13896) a site asks the model it received about its unlabelled texts U_k and moves a
portion of them, with the model's probabilities as their labels, to the texts it trains on. Which texts go first and
what is done to the probabilities are the choices here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flaretune.seeding import derive_seed


@dataclass(frozen=True)
class SoftLabelSettings:
    """How texts are labelled; the options of the same names in `config.LPFLConfig`.

    Attributes:
        soft_portion: share of the whole pool that moves in a round, in (0, 1]; rounded, at least one text.
        soft_select: which texts move first: by "order", most "confident", or "balanced" over the classes.
        soft_temperature: T in q = softmax(s / T), above 0.
        soft_refresh: 1: texts that moved earlier are labelled anew by each received model.
        soft_prior: "as_is", or "uniform": a class's mean log-probability over the texts asked about is taken off
            before the softmax, so that a model that prefers a class everywhere does not label so (after batch
            calibration, arXiv 2309.17249). Without soft_refresh that mean is over ever fewer texts.
        soft_noise: share of the pool, in [0, 1], whose labels are replaced by all on one random class, which may be
            the right one; for experiments. It has no say in which texts move.
        seed: the job's.
    """

    soft_portion: float
    soft_select: str
    soft_temperature: float
    soft_refresh: int
    soft_prior: str
    soft_noise: float
    seed: int

    def __post_init__(self):
        if not 0 < self.soft_portion <= 1:
            raise ValueError(f"soft_portion {self.soft_portion}: must be above 0 and at most 1")
        if self.soft_select not in ("order", "confident", "balanced"):
            raise ValueError(f"soft_select {self.soft_select!r}: must be order, confident or balanced")
        if not (math.isfinite(self.soft_temperature) and self.soft_temperature > 0):
            raise ValueError(f"soft_temperature {self.soft_temperature}: must be a finite number above 0")
        if self.soft_prior not in ("as_is", "uniform"):
            raise ValueError(f"soft_prior {self.soft_prior!r}: must be as_is or uniform")
        if not 0 <= self.soft_noise <= 1:
            raise ValueError(f"soft_noise {self.soft_noise}: must be between 0 and 1")


class SoftLabelPool:
    """A site's unlabelled texts, by their index in U_k: which have moved to the training data, and their labels.

    Args:
        n_texts: size of U_k; may be 0.
        n_classes: of the task, at least 2.
        settings: how texts are chosen and labelled.
        site: the site's name, for its own noise.
    """

    def __init__(self, n_texts: int, n_classes: int, settings: SoftLabelSettings, site: str):
        if n_texts < 0 or n_classes < 2:
            raise ValueError(f"a pool of {n_texts} texts for {n_classes} classes is not possible")
        self._n_texts, self._n_classes, self._settings = n_texts, n_classes, settings
        self._moved = np.empty(0, dtype=np.int64)
        self._labels = np.empty((0, n_classes))
        self._last_round = -1
        self._noise_class = _noise_classes(n_texts, n_classes, settings, site)

    @property
    def indices(self) -> np.ndarray:
        """The texts that have moved, in the order in which they did, int64, shape (M,)."""
        return self._moved.copy()

    @property
    def labels(self) -> np.ndarray:
        """Their soft labels, float64, shape (M, C); rows sum to 1."""
        return self._labels.copy()

    def wanted(self) -> np.ndarray:
        """The texts that the received model has to be asked about, int64, ascending; none when all is done.

        These are the texts that have not moved; with soft_refresh, or while the prior has to be estimated, all.
        """
        everything = np.arange(self._n_texts, dtype=np.int64)
        left = np.setdiff1d(everything, self._moved)
        if self._settings.soft_refresh or (len(left) and self._settings.soft_prior == "uniform"):
            return everything
        return left

    def label(self, indices: np.ndarray, logits: np.ndarray, round_number: int) -> None:
        """Move the next portion with labels from the received model; with soft_refresh also label the others anew.

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
        if indices.size == 0:
            return
        if self._settings.soft_prior == "uniform":
            # the mean of log-probabilities and that of logits differ by a number that is the same for all classes
            scores = scores - scores.mean(axis=0)
        scores = (scores - scores.max(axis=1, keepdims=True)) / self._settings.soft_temperature
        labels = self._with_noise(indices, _softmax(scores))  # (N, C)
        if self._settings.soft_refresh:
            self._labels = labels[self._moved]  # all were asked about, so that row i is text i
        if round_number > self._last_round:
            self._last_round = round_number
            rows = np.flatnonzero(~np.isin(indices, self._moved))
            rows = rows[self._choose(scores[rows])]
            self._moved = np.concatenate([self._moved, indices[rows]])
            self._labels = np.concatenate([self._labels, labels[rows]])

    def agreement(self, truth: np.ndarray) -> tuple[int, int]:
        """Count labels whose most probable class is the hidden one; for reports.

        Args:
            truth: hidden class ids of the whole pool, int, shape (n_texts,).

        Returns:
            How many agree, and how many labels there are.
        """
        truth = np.asarray(truth)
        if truth.shape != (self._n_texts,):
            raise ValueError(f"hidden labels of shape {truth.shape} do not fit a pool of {self._n_texts} texts")
        agree = self._labels.argmax(axis=1) == truth[self._moved]
        return int(agree.sum()), len(agree)

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
        """Which rows of ``scores`` (s / T of the texts that have not moved, largest 0) move now, in their order."""
        portion = max(1, math.floor(self._settings.soft_portion * self._n_texts + 0.5))
        count = min(portion, len(scores))
        if self._settings.soft_select == "order":
            return np.arange(count)
        odds = _log_odds(scores)
        if self._settings.soft_select == "confident":
            return np.argsort(-odds.max(axis=1), kind="stable")[:count]
        return _balanced(odds, count, first_slot=len(self._moved))

    def _with_noise(self, indices: np.ndarray, labels: np.ndarray) -> np.ndarray:
        classes = self._noise_class[indices]
        noisy = classes >= 0
        labels[noisy] = np.eye(self._n_classes)[classes[noisy]]
        return labels


def _noise_classes(n_texts: int, n_classes: int, settings: SoftLabelSettings, site: str) -> np.ndarray:
    """The random class of each text whose label is replaced, −1 for the others, int64, shape (n_texts,).

    Drawn once for the whole pool, so that the same texts are noisy whenever they are labelled. With the same seed,
    more noise adds to what less noise replaces.
    """
    rng = np.random.default_rng(derive_seed(settings.seed, "soft noise", site))
    order, classes = rng.permutation(n_texts), rng.integers(n_classes, size=n_texts)
    is_noisy = np.isin(np.arange(n_texts), order[: math.floor(settings.soft_noise * n_texts + 0.5)])
    return np.where(is_noisy, classes, -1)


def _softmax(scores: np.ndarray) -> np.ndarray:
    """Of rows whose largest score is 0."""
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True)


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
