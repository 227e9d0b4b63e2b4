"""Which labels texts get, and when they move; agreement with the hidden ones."""

from __future__ import annotations

import numpy as np
import pytest

from tests.methods.lpfl.pools import make_pool, model, play, softmax


@pytest.mark.parametrize("n_classes", [2, 3, 14])
@pytest.mark.parametrize("soft_select", ["order", "confident", "balanced"])
def test_labels_are_the_softmax_of_the_models_logits(n_classes, soft_select):
    pool = make_pool(20, n_classes, soft_select=soft_select)
    logits = model(20, n_classes)
    play(pool, logits, 1)
    assert pool.indices.dtype == np.int64
    assert pool.labels.dtype == np.float64
    assert pool.labels.shape == (5, n_classes)
    expected = [softmax(logits[text]) for text in pool.indices]
    np.testing.assert_allclose(pool.labels, expected, rtol=1e-12)


def test_large_logits_give_labels_all_on_one_class():
    pool = make_pool(2, 3, soft_portion=1.0)
    play(pool, np.array([[2900.0, 899.0, -900.0], [0.0, 0.0, 1e300]]), 1)
    assert pool.labels.tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("soft_select", ["order", "confident", "balanced"])
@pytest.mark.parametrize(
    ("n_texts", "portion", "sizes"),
    [
        (20, 0.25, [5, 5, 5, 5]),
        (20, 1.0, [20]),
        (10, 0.25, [3, 3, 3, 1]),  # 2.5 is rounded up
        (9, 0.25, [2, 2, 2, 2, 1]),
        (3, 0.1, [1, 1, 1]),
        (1, 0.01, [1]),
        (10, 0.1, [1] * 10),
    ],
)
def test_every_text_moves_once_a_portion_a_round(soft_select, n_texts, portion, sizes):
    pool = make_pool(n_texts, 3, soft_select=soft_select, soft_portion=portion)
    moved: list[int] = []
    for number, size in enumerate(sizes, start=1):
        left = [text for text in range(n_texts) if text not in moved]
        assert pool.wanted().tolist() == left
        new = play(pool, model(n_texts, 3, seed=number), number)
        assert len(new) == size
        moved += new
        assert pool.indices.tolist() == moved
    assert sorted(moved) == list(range(n_texts))
    assert pool.wanted().tolist() == []
    assert play(pool, model(n_texts, 3), len(sizes) + 1) == []
    assert pool.indices.tolist() == moved


def test_a_round_that_is_played_again_moves_nothing_more():
    pool = make_pool(8)
    assert play(pool, model(8), 2) == [0, 1]
    labels = pool.labels
    assert play(pool, model(8, seed=1), 2) == []
    assert play(pool, model(8, seed=1), 1) == []
    np.testing.assert_array_equal(pool.labels, labels)
    assert play(pool, model(8), 3) == [2, 3]


def test_labels_stay_as_they_were_when_their_texts_moved():
    first, second, third = (model(8, seed=seed) for seed in range(3))
    pool = make_pool(8, soft_portion=0.5)
    for number, logits in enumerate((first, second, third)):
        play(pool, logits, number)
    np.testing.assert_allclose(pool.labels, [softmax(row) for row in (*first[:4], *second[4:])], rtol=1e-12)


@pytest.mark.parametrize(
    ("logits", "truth", "expected"),
    [
        ([[0, 1], [2, 0], [0, 1], [1, 0]], [1, 0, 0, 0], 3),
        ([[0, 1], [2, 0], [0, 1], [1, 0]], [0, 1, 0, 1], 0),
        ([[0, 1], [2, 0], [0, 1], [1, 0]], [1, 0, 1, 0], 4),
    ],
)
def test_agreement_counts_the_labels_that_are_right(logits, truth, expected):
    pool = make_pool(4, soft_portion=1.0)
    assert pool.agreement(np.array(truth)) == 0
    play(pool, np.array(logits, dtype=float), 1)
    assert pool.agreement(np.array(truth)) == expected


def test_agreement_is_of_the_texts_that_have_moved_in_whatever_order():
    logits = np.array([[0.0, 1.0], [0.0, 3.0], [2.0, 0.0], [4.0, 0.0]])
    pool = make_pool(4, soft_select="confident", soft_portion=0.5)
    play(pool, logits, 1)
    assert pool.indices.tolist() == [3, 1]
    assert pool.agreement(np.array([0, 0, 1, 0])) == 1  # text 3 is right, text 1 is not
    with pytest.raises(ValueError, match=r"shape \(3,\) do not fit a pool of 4 texts"):
        pool.agreement(np.array([0, 0, 1]))


def test_an_empty_pool_has_nothing_to_do():
    pool = make_pool(0)
    assert play(pool, np.empty((0, 2)), 1) == []
    assert pool.wanted().shape == (0,)
    assert (pool.indices.shape, pool.labels.shape) == ((0,), (0, 2))
    assert pool.agreement(np.empty(0, dtype=np.int64)) == 0
