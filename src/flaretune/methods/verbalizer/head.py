"""A head: log-probabilities of words behind templates in, scores of the classes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Steps of making one: which words, with which weights, how much shrinkage.
HEAD_STEPS = WORDS, SUMS, LOSSES = "words", "sums", "losses"


@dataclass(frozen=True, eq=False)
class Head:
    """Scores are ℓ W + b, and probabilities softmax(scores / τ).

    Attributes:
        words: of each feature its template, counted from 0, and its token id, int64 (F, 2); F may be 0.
        weights: W, float64 (F, C).
        bias: b, float64 (C,).
        temperature: τ, above 0.
    """

    words: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    temperature: float

    def logits(self, log_probs: np.ndarray) -> np.ndarray:
        """Log-probabilities of its words, float (N, F) → scores / τ, float64 (N, C)."""
        return (np.asarray(log_probs, dtype=np.float64) @ self.weights + self.bias) / self.temperature

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            "words": self.words,
            "weights": self.weights,
            "bias": self.bias,
            "temperature": np.array([self.temperature]),
        }


def head_of(arrays: Mapping[str, np.ndarray]) -> Head:
    """What `Head.arrays` gave.

    Raises:
        ValueError: something is missing, or of another size.
    """
    try:
        words, weights, bias, (temperature,) = (arrays[n] for n in ("words", "weights", "bias", "temperature"))
    except KeyError as error:
        raise ValueError(f"array {error} is missing") from error
    if words.shape != (len(weights), 2) or weights.shape != (len(words), len(bias)) or not temperature > 0:
        raise ValueError("the arrays of a head do not belong together")
    return Head(words.astype(np.int64), weights.astype(np.float64), bias.astype(np.float64), float(temperature))


IN_MESSAGE = "head."  # what names of a head's arrays begin with where there are others beside them


def head_arrays(head: Head) -> dict[str, np.ndarray]:
    """Its arrays under names that leave room for others beside them."""
    return {f"{IN_MESSAGE}{name}": values for name, values in head.arrays().items()}


def sent_head(arrays: Mapping[str, np.ndarray]) -> Head:
    """The head among the arrays of a message, as `head_arrays` gave it.

    Raises:
        ValueError: see `head_of`.
    """
    of_head = [name for name in arrays if name.startswith(IN_MESSAGE)]
    return head_of({name.removeprefix(IN_MESSAGE): arrays[name] for name in of_head})


def label_word_head(label_ids: Sequence[Sequence[int]], n_classes: int) -> Head:
    """The model and the first template alone: a class's score is the mean log-probability of its label words.

    Args:
        label_ids: token ids of each class; empty where the task names none: then all classes are equally probable.
        n_classes: C.
    """
    words = [(0, token) for tokens in label_ids for token in tokens]
    weights = np.zeros((len(words), n_classes))
    row = 0
    for class_id, tokens in enumerate(label_ids):
        weights[row : row + len(tokens), class_id] = 1 / len(tokens)
        row += len(tokens)
    return Head(np.array(words, dtype=np.int64).reshape(-1, 2), weights, np.zeros(n_classes), 1.0)


def label_word_weights(words: np.ndarray, label_ids: Sequence[Sequence[int]], n_classes: int) -> np.ndarray | None:
    """What of a head's words the label words alone would weigh: those of each class on average, behind all templates.

    Args:
        words: of the features, as in `Head.words`.
        label_ids: token ids of each class; empty where the task names none.
        n_classes: C.

    Returns:
        W₀, float64 (F, C), of rows that sum to 0: what a class has above the mean of all. None where there are no label
        words, or no template behind which each class has one.
    """
    weights, whole = np.zeros((len(words), n_classes)), 0
    for template in np.unique(words[:, 0]) if len(label_ids) else ():
        of_class = [(words[:, 0] == template) & np.isin(words[:, 1], tokens) for tokens in label_ids]
        if all(rows.any() for rows in of_class):
            whole += 1
            for class_id, rows in enumerate(of_class):
                weights[rows, class_id] += 1 / rows.sum()
    return (weights - weights.mean(axis=1, keepdims=True)) / whole if whole else None
