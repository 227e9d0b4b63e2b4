"""Arithmetic over the arrays of many clients, in float64 without a float64 copy of whole arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from flaretune.aggregation.base import Arrays

PIECE = 1 << 20  # numbers of an array that are worked on at a time: with --tuning full an array has many


def coordinate_median(updates: Sequence[Arrays]) -> dict[str, np.ndarray]:
    """The median of M clients' arrays, number by number, in their dtype; of an even M the middle of the two."""
    medians = {}
    for name, values in updates[0].items():
        median = np.empty(values.size, dtype=values.dtype)
        for place, _, all_values in _pieces(values, [update[name] for update in updates]):
            median[place] = np.median(all_values, axis=0)
        medians[name] = median.reshape(values.shape)
    return medians


def distances(start: Arrays, updates: Sequence[Arrays]) -> np.ndarray:
    """How far each of M updates is from the start: Euclidean over all arrays together, float64, shape (M,)."""
    squares = np.zeros(len(updates))
    for name in start:
        for _, first, others in _pieces(start[name], [update[name] for update in updates]):
            squares += np.square(others - first).sum(axis=1)
    return np.sqrt(squares)


def shortened(start: Arrays, update: Arrays, factor: float) -> dict[str, np.ndarray]:
    """start + factor · (update − start), in the update's dtype."""
    found = {}
    for name, values in update.items():
        result = np.empty(values.size, dtype=values.dtype)
        for place, first, [other] in _pieces(start[name], [values]):
            result[place] = first + factor * (other - first)
        found[name] = result.reshape(values.shape)
    return found


def _pieces(first: np.ndarray, others: Sequence[np.ndarray]) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Pieces of arrays of one shape, float64: (their place, that of the first (n,), those of the others (M, n))."""
    flat_first, flat = first.reshape(-1), [other.reshape(-1) for other in others]
    for begin in range(0, first.size, PIECE):
        place = slice(begin, begin + PIECE)
        yield place, flat_first[place].astype(np.float64), np.stack([f[place] for f in flat]).astype(np.float64)
