from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaretune.data.fewshot import few_shot
from flaretune.errors import UserError


@given(
    counts=st.lists(st.integers(2, 12), min_size=2, max_size=5),
    seed=st.integers(1, 2**32 - 1),
    data=st.data(),
)
def test_k_of_every_class_in_each_of_two_disjoint_sets(counts, seed, data):
    k = data.draw(st.integers(1, min(counts) // 2))
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    train, development = few_shot(labels, k, len(counts), seed)
    assert np.bincount(labels[train], minlength=len(counts)).tolist() == [k] * len(counts)
    assert np.bincount(labels[development], minlength=len(counts)).tolist() == [k] * len(counts)
    assert len(set(train) | set(development)) == 2 * k * len(counts)


def test_equal_seeds_equal_draw():
    labels = np.tile([0, 1], 50)
    first, second, other = (few_shot(labels, 5, 2, seed) for seed in (7, 7, 8))
    assert [a.tolist() for a in first] == [a.tolist() for a in second]
    assert first[0].tolist() != other[0].tolist()


def test_every_example_can_be_drawn():
    labels = np.tile([0, 1], 4)
    drawn = {int(index) for seed in range(50) for index in few_shot(labels, 1, 2, seed)[0]}
    assert drawn == set(range(8))


@pytest.mark.parametrize(
    ("k", "n_ones", "message"),
    [
        (5, 9, "k = 5 .* need 10 of every class, but class 1 has 9; the largest k that fits is 4"),
        (1, 1, "class 1 has 1; add examples"),
        (1, 0, "class 1 has 0; add examples"),
        (0, 9, "k = 0"),
    ],
)
def test_too_large_or_impossible_k(k, n_ones, message):
    with pytest.raises(UserError, match=message):
        few_shot(np.array([0] * 20 + [1] * n_ones), k, 2, seed=1)
