"""Which texts move first: in their order, the most confident ones, or the classes in equal shares."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.methods.lpfl.pools import make_pool, model, play


# logits by text; what moves first, the others following as they are named
@pytest.mark.parametrize(
    ("soft_select", "logits", "order"),
    [
        ("order", [[0, 1], [9, 0], [0, 5], [0, 0]], [0, 1, 2, 3]),
        ("confident", [[0, 1], [9, 0], [0, 5], [0, 0]], [1, 2, 0, 3]),
        ("confident", [[0, 1], [1, 0], [2, 3], [0, 2]], [3, 0, 1, 2]),  # ties by index
        ("confident", [[0, 60], [0, 50], [0, 70], [0, 40]], [2, 0, 1, 3]),  # probabilities that are all rounded to 1
        # q by text (.5, .3, .2), (.4, .4, .2), (.1, .2, .7), (.45, .1, .45)
        ("confident", np.log([[5, 3, 2], [4, 4, 2], [1, 2, 7], [4.5, 1, 4.5]]), [2, 0, 3, 1]),
        ("balanced", np.log([[5, 3, 2], [4, 4, 2], [1, 2, 7], [4.5, 1, 4.5]]), [0, 1, 2, 3]),
        ("balanced", [[0, 1], [9, 0], [0, 5], [0, 0]], [1, 2, 3, 0]),
        # everything positive: the least positive ones are the negative class's share
        ("balanced", [[0, 4], [0, 1], [0, 3], [0, 2]], [1, 0, 3, 2]),
        ("balanced", [[0, 40], [0, 50], [0, 60], [0, 70]], [0, 3, 1, 2]),
        ("balanced", [[1, 1], [1, 1], [1, 1], [1, 1]], [0, 1, 2, 3]),
    ],
)
@pytest.mark.parametrize("portion", [0.25, 0.5, 0.75, 1.0])
def test_which_texts_move_first(soft_select, logits, order, portion):
    logits = np.asarray(logits, dtype=np.float64)
    pool = make_pool(4, logits.shape[1], soft_select=soft_select, soft_portion=portion)
    for number in range(4):
        play(pool, logits, number)
    assert pool.indices.tolist() == order


def test_texts_of_equal_confidence_in_different_classes_move_by_index():
    rng = np.random.default_rng(1)
    same = rng.normal(size=7)
    pool = make_pool(30, 7, soft_select="confident")
    assert play(pool, np.array([rng.permutation(same) for _ in range(30)]), 1) == list(range(8))


@pytest.mark.parametrize("scale", [1.0, 0.02, 50.0])
@pytest.mark.parametrize(
    ("n_classes", "portion", "counts"),
    [
        (2, 0.1, [2, 2]),
        (2, 0.125, [3, 2]),
        (3, 0.15, [2, 2, 2]),
        (3, 0.2, [3, 3, 2]),
        (4, 0.025, [1, 0, 0, 0]),
    ],
)
def test_balanced_shares_of_a_model_that_calls_everything_the_last_class(scale, n_classes, portion, counts):
    logits = model(40, n_classes) * scale
    logits[:, -1] += 100 * scale
    assert (logits.argmax(axis=1) == n_classes - 1).all()
    pool = make_pool(40, n_classes, soft_select="balanced", soft_portion=portion)
    moved = play(pool, logits, 1)
    # in turn, each class takes the text left with its largest q, so with its largest q / (1 - q); decimals neither
    # overflow nor round q to 1
    powers = [[Decimal(float(score)).exp() for score in row] for row in logits]
    expected: list[int] = []
    for slot in range(sum(counts)):
        c = slot % n_classes
        odds = {text: row[c] / sum(row[:c] + row[c + 1 :]) for text, row in enumerate(powers) if text not in expected}
        expected.append(max(odds, key=odds.__getitem__))
    assert moved == expected


@given(st.integers(2, 4), st.integers(1, 40), st.floats(0.02, 1.0), st.integers(0, 2**32 - 1), st.floats(-20, 20))
def test_balanced_rounds_stay_even_over_the_job(n_classes, n_texts, portion, seed, bias):
    """With scores so far apart that every text has one class of its own, an even pool moves evenly."""
    own_class = np.random.default_rng(seed).permutation(np.arange(n_texts * n_classes) % n_classes)
    logits = 100.0 * np.eye(n_classes)[own_class]
    logits[:, 0] += bias  # the same for all texts: it changes no ranking by class
    pool = make_pool(len(own_class), n_classes, soft_select="balanced", soft_portion=portion)
    for number in range(4):
        play(pool, logits, number)
        counts = np.bincount(own_class[pool.indices], minlength=n_classes)
        assert np.ptp(counts) <= 1
