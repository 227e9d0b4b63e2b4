"""Adapters of several ranks: their mean, what a client makes of the job's, and a whole job."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaretune.methods.lpfl.lower_rank import product_mean, truncated

A, B = "layers.0.q_proj.lora_A.weight", "layers.0.q_proj.lora_B.weight"


def drawn(seed: int, out: int, rank: int, into: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {B: (out, rank), A: (rank, into)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def product(arrays) -> np.ndarray:
    return arrays[B].astype(np.float64) @ arrays[A].astype(np.float64)


def closest(matrix: np.ndarray, rank: int) -> np.ndarray:
    """The best approximation of a rank, of the whole matrix (Eckart and Young)."""
    u, singular, v = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * singular[:rank]) @ v[:rank]


sizes = st.integers(1, 9)


@given(st.integers(0, 99), sizes, sizes, sizes, sizes)
def test_what_is_cut_down_is_the_best_approximation(seed, out, into, rank, wanted):
    arrays = drawn(seed, out, rank, into)
    b, a = truncated(arrays[B], arrays[A], wanted)
    assert (b.shape, a.shape, b.dtype, a.dtype) == ((out, wanted), (wanted, into), np.float32, np.float32)
    np.testing.assert_allclose(product({B: b, A: a}), closest(product(arrays), wanted), rtol=1e-4, atol=1e-4)


@given(st.integers(0, 99), sizes, sizes, st.lists(sizes, min_size=1, max_size=4))
def test_the_mean_is_that_of_products_as_close_as_its_rank_allows(seed, out, into, ranks):
    start = drawn(seed, out, ranks[0], into)
    updates = [drawn(seed + i, out, rank, into) for i, rank in enumerate(ranks, 1)]
    weights = np.arange(1, len(ranks) + 1)
    mean = sum(w * product(update) for w, update in zip(weights, updates, strict=True)) / weights.sum()
    found = product_mean(start, updates, weights)
    np.testing.assert_allclose(product(found), closest(mean, ranks[0]), rtol=1e-4, atol=1e-4)


def test_a_product_of_zero_leaves_rows_that_can_be_trained():
    arrays = drawn(3, 6, 4, 7)
    b, a = truncated(0 * arrays[B], arrays[A], 2)
    assert not b.any()
    assert np.linalg.matrix_rank(a) == 2
    assert np.linalg.matrix_rank(np.vstack([a, arrays[A]])) == 4  # of the rows that were there


def test_ranks_that_are_fewer_in_all_leave_rows_that_can_be_trained():
    start = drawn(4, 6, 4, 7)
    found = product_mean(start, [drawn(5, 6, 1, 7), drawn(6, 6, 1, 7)], [3, 5])
    assert np.linalg.matrix_rank(found[B]) == 2
    assert np.linalg.matrix_rank(found[A]) == 4
