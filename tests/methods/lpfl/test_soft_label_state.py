"""A pool's state, which a process started anew goes on from; states, answers and settings that are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.methods.lpfl.pools import make_pool, model, play


@pytest.mark.parametrize("soft_select", ["order", "confident", "balanced"])
@pytest.mark.parametrize("stop", [0, 1, 3, 5])
def test_a_process_started_anew_goes_on_as_if_nothing_had_been(soft_select, stop):
    whole, first, second = (make_pool(21, 3, soft_select=soft_select) for _ in range(3))
    for number in range(6):
        play(whole, model(21, 3, seed=number), number)
    for number in range(stop):
        play(first, model(21, 3, seed=number), number)
    second.restore(first.state())
    play(second, model(21, 3, seed=99), stop - 1)  # a round that was there before
    for number in range(stop, 6):
        play(second, model(21, 3, seed=number), number)
    assert second.indices.tolist() == whole.indices.tolist()
    np.testing.assert_array_equal(second.labels, whole.labels)


def test_what_is_given_out_is_no_way_in():
    pool = make_pool(8)
    play(pool, model(8), 1)
    before = pool.state()
    for array in (pool.indices, pool.labels, *pool.state().values()):
        array[...] = 5
    again = make_pool(8)
    again.restore(before)
    assert pool.indices.tolist() == again.indices.tolist() == [0, 1]
    np.testing.assert_array_equal(pool.labels, again.labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "has moved, labels and last_round, not"),
        ({"more": np.zeros(1)}, "has moved, labels and last_round, not"),
        ({"moved": np.array([0, 0])}, "each once"),
        ({"moved": np.array([0.0, 1.0])}, "must be integers"),
        ({"moved": np.array([[0, 1]])}, "in a row"),
        ({"moved": np.array([0, 8])}, "names text 8 of a pool of 8"),
        ({"moved": np.array([0, -1])}, "names text -1 of a pool of 8"),
        ({"moved": np.array([0])}, r"shape \(2, 2\) and type float64 are no probabilities of 1 texts"),
        ({"labels": np.full((2, 3), 1 / 3)}, r"shape \(2, 3\) .* 2 texts and 2 classes"),
        ({"labels": np.array([[1, 0], [0, 1]])}, "type int64"),
        ({"labels": np.array([[0.5, 0.6], [0.5, 0.5]])}, "sum to 1"),
        ({"labels": np.array([[1.5, -0.5], [0.5, 0.5]])}, "sum to 1"),
        ({"labels": np.array([[np.nan, 0.5], [0.5, 0.5]])}, "sum to 1"),
        ({"last_round": np.array(1)}, "last round .* one integer"),
        ({"last_round": np.array([1.0])}, "last round .* one integer"),
    ],
)
def test_a_state_of_something_else_is_refused_and_changes_nothing(change, message):
    pool = make_pool(8)
    play(pool, model(8), 1)
    before = pool.state()
    state = {name: array for name, array in {**before, **change}.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        pool.restore(state)
    for name, array in pool.state().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused_whole(bad):
    pool = make_pool(8)
    play(pool, model(8), 1)
    before = pool.labels
    logits = model(8)
    logits[[5, 7], 1] = bad
    with pytest.raises(ValueError, match=r"answer to 2 of \d unlabelled texts is not finite \(first: text 5\)"):
        play(pool, logits, 2)
    np.testing.assert_array_equal(pool.labels, before)
    assert pool.indices.tolist() == [0, 1]
    assert play(pool, model(8), 2) == [2, 3]


@pytest.mark.parametrize(
    ("indices", "shape", "message"),
    [
        ([0, 1, 2], (3, 2), "wants 4 texts labelled, but was given others"),
        ([1, 0, 2, 3], (4, 2), "was given others"),
        ([0, 1, 2, 3], (4, 3), r"shape \(4, 3\) do not fit 4 texts and 2 classes"),
        ([0, 1, 2, 3], (3, 2), r"shape \(3, 2\) do not fit 4 texts"),
        ([0, 1, 2, 3], (8,), r"shape \(8,\) do not fit 4 texts"),
    ],
)
def test_answers_to_something_else_are_refused(indices, shape, message):
    pool = make_pool(4)
    with pytest.raises(ValueError, match=message):
        pool.label(np.array(indices), np.zeros(shape), 1)
    assert len(pool.indices) == 0


def test_pools_that_cannot_be():
    for n_texts, n_classes in ((-1, 2), (4, 1)):
        with pytest.raises(ValueError, match=f"{n_texts} texts for {n_classes} classes"):
            make_pool(n_texts, n_classes)
