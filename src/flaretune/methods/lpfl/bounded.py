"""What a site's arrays may do to the global ones: updates of limited length, and medians."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from flaretune.aggregation.limits import shrinkage

Arrays = Mapping[str, np.ndarray]
PIECE = 1 << 20  # numbers of an array that are worked on at a time: with --tuning full an array has many


def clip_updates(start: Arrays, answers: Sequence[Arrays]) -> tuple[list[Arrays], np.ndarray]:
    """Shorten updates that are longer than `robust.FACTOR` times the lower median of all to that median.

    An update is the difference to the start of the round, its length the Euclidean one over all arrays.

    Args:
        start: what the sites started from, by name; empty where the server does not know it (--tuning full, first
            round), for which the coordinate-wise median of the answers then stands.
        answers: what each of M sites has trained, float32, of the same names and shapes.

    Returns:
        The answers, those within the limit as they are; and what each was multiplied by, float64, shape (M,).
    """
    start = start or coordinate_median(answers)
    squares = np.zeros(len(answers))
    for name in start:
        for _, first, others in _pieces(start[name], [a[name] for a in answers]):
            squares += np.square(others - first).sum(axis=1)
    shorter = shrinkage(np.sqrt(squares), down_to=1)
    clipped = [
        {name: _shortened(start[name], values, by) for name, values in answer.items()} if by < 1 else answer
        for answer, by in zip(answers, shorter, strict=True)
    ]
    return clipped, shorter


def coordinate_median(answers: Sequence[Arrays]) -> dict[str, np.ndarray]:
    """The median of M sites' arrays, number by number, float32; of an even M the middle of the two."""
    medians = {}
    for name, values in answers[0].items():
        median = np.empty(values.size, dtype=np.float32)
        for place, _, others in _pieces(values, [a[name] for a in answers]):
            median[place] = np.median(others, axis=0)
        medians[name] = median.reshape(values.shape)
    return medians


def _shortened(start: np.ndarray, values: np.ndarray, by: float) -> np.ndarray:
    """start + by · (values − start), float32."""
    result = np.empty(values.size, dtype=np.float32)
    for place, first, [other] in _pieces(start, [values]):
        result[place] = first + by * (other - first)
    return result.reshape(values.shape)


def _pieces(first: np.ndarray, others: Sequence[np.ndarray]) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Pieces of arrays of one shape, float64: (their place, that of the first (n,), those of the others (M, n))."""
    flat_first, flat = first.reshape(-1), [other.reshape(-1) for other in others]
    for begin in range(0, first.size, PIECE):
        place = slice(begin, begin + PIECE)
        yield place, flat_first[place].astype(np.float64), np.stack([f[place] for f in flat]).astype(np.float64)
