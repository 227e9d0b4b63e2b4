from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaretune.data.shares import few_shot
from flaretune.errors import UserError


@given(
    counts=st.lists(st.integers(2, 12), min_size=2, max_size=5),
    seed=st.integers(1, 2**32 - 1),
    data=st.data(),
)
def test_k_of_every_class_in_each_of_two_disjoint_sets(counts, seed, data):
    k = data.draw(st.integers(1, min(counts) // 2))
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    train, development = few_shot(labels, k, range(len(counts)), seed)
    assert np.bincount(labels[train], minlength=len(counts)).tolist() == [k] * len(counts)
    assert np.bincount(labels[development], minlength=len(counts)).tolist() == [k] * len(counts)
    assert len(set(train) | set(development)) == 2 * k * len(counts)


def test_equal_seeds_equal_draw():
    labels = np.tile([0, 1], 50)
    first, second, other = (few_shot(labels, 5, (0, 1), seed) for seed in (7, 7, 8))
    assert [a.tolist() for a in first] == [a.tolist() for a in second]
    assert first[0].tolist() != other[0].tolist()


def test_every_example_can_be_drawn():
    labels = np.tile([0, 1], 4)
    drawn = {int(index) for seed in range(50) for index in few_shot(labels, 1, (0, 1), seed)[0]}
    assert drawn == set(range(8))


@pytest.mark.parametrize(
    ("k", "n_ones", "message"),
    [
        (5, 9, "--k_shot 5: takes 5 texts with each label .* only 9 have the label 'sport'; use at most 4"),
        (1, 1, "only 1 have the label 'sport'; add texts with it"),
        (1, 0, "only 0 have the label 'sport'; add texts with it"),
        (0, 9, "--k_shot 0: must be at least 1"),
    ],
)
def test_too_large_or_impossible_k(k, n_ones, message):
    with pytest.raises(UserError, match=message):
        few_shot(np.array([0] * 20 + [1] * n_ones), k, ("news", "sport"), seed=1)
