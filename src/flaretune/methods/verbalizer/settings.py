"""What a client of a verbalizer job says of itself besides what all clients do, and the check of it on receipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Candidates are the most probable words behind these, so that they depend on no client's texts.
NEUTRAL_TEXTS = ("N/A", "This is a text.", "Some words here.")
NEUTRAL = "neutral"  # name of the array of `Vocabulary.neutral` in a message
DEFAULT_N_WORDS = 64  # of a head, for each template
N_CANDIDATES = 2000  # words that a head's are chosen from, those of the classes among them
LONGEST_TEXT = 200  # of a word, in characters
LARGEST_ID = 2**24  # ids below are whole numbers in float32 too


@dataclass(frozen=True)
class Vocabulary:
    """Words of a model.

    Attributes:
        label_ids: token ids of each class's label words; empty where the task names none.
        candidates: token ids, int64 (V,): what words are chosen from.
        texts: of each of them.
        neutral: their log-probabilities behind texts that say nothing, float32 (T, V).
    """

    label_ids: list[list[int]]
    candidates: np.ndarray
    texts: list[str]
    neutral: np.ndarray

    def settings(self, templates: Sequence[str]) -> dict[str, Any]:
        """What a client tells of itself, as `check_settings` reads it."""
        return {
            "initial": {NEUTRAL: list(self.neutral.shape)},
            "verbalizer": {"templates": list(templates), "label_ids": self.label_ids},
            "candidates": [[int(token), text] for token, text in zip(self.candidates, self.texts, strict=True)],
        }


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check templates, label words and candidates.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: something is missing, or cannot be.
    """
    told, candidates = settings["verbalizer"], settings["candidates"]
    templates, label_ids = told["templates"], told["label_ids"]
    if not (isinstance(templates, list) and templates and all(isinstance(t, str) for t in templates)):
        raise ValueError("its templates are no list of texts")
    n_classes = len(settings["task"]["label_values"])
    if not (isinstance(label_ids, list) and len(label_ids) in (0, n_classes)):
        raise ValueError(f"its label words are not those of {n_classes} classes")
    tokens = [token for of_class in label_ids for token in _checked(of_class)]
    for pair in _list(candidates):
        token, text = pair
        if not (_is_id(token) and isinstance(text, str) and len(text) <= LONGEST_TEXT):
            raise ValueError("its candidates are no pairs of a token id and a text")
    ids = [token for token, _ in candidates]
    if not ids or len(set(ids)) < len(ids) or set(tokens) - set(ids):
        raise ValueError("its candidates are none, twice the same, or without its label words")
    if len(ids) > max(N_CANDIDATES, len(tokens)):
        raise ValueError(f"it names {len(ids)} candidates, more than {N_CANDIDATES}")
    if settings["initial"] != {NEUTRAL: [len(templates), len(ids)]}:
        raise ValueError("what it starts from is not of its templates and candidates")


def _checked(of_class: Any) -> list[int]:
    tokens = _list(of_class)
    if not tokens or not all(_is_id(token) for token in tokens):
        raise ValueError("the label words of a class are no token ids")
    return tokens


def _list(value: Any) -> list:
    if not isinstance(value, list):
        raise TypeError(f"a {type(value).__name__} in place of a list")
    return value


def _is_id(token: Any) -> bool:
    return type(token) is int and 0 <= token < LARGEST_ID
