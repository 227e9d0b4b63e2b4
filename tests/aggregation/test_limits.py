"""What is far above the others is brought down, on numbers that can be checked by hand."""

import numpy as np
import pytest

from flaretune.aggregation.base import clip_factors


@pytest.mark.parametrize(
    ("sizes", "down_to", "expected"),
    [
        ([3.0], 1, [3.0]),
        ([3.0, 6.0], 1, [3.0, 6.0]),  # of an even number the lower of the two in the middle
        ([3.0, 100.0], 1, [3.0, 3.0]),
        ([3.0, 100.0], 2, [3.0, 6.0]),
        ([5.0, 1.0, 100.0], 1, [5.0, 1.0, 5.0]),
        ([4.0, 1.0, 100.0, 2.0], 1, [4.0, 1.0, 2.0, 2.0]),
        ([4.5, 1.0, 1e300, 2.0], 2, [4.0, 1.0, 4.0, 2.0]),
        ([1e-310, 4e299, 1e300], 1, [1e-310, 4e299, 4e299]),
        ([0.0, 0.0, 7.0], 1, [0.0, 0.0, 7.0]),  # clients that did not move say nothing of how far one moves
        ([0.0, 0.0], 1, [0.0, 0.0]),
    ],
)
def test_what_is_above_twice_the_lower_median_comes_down(sizes, down_to, expected):
    with np.errstate(over="raise"):
        by = clip_factors(np.array(sizes), down_to)
    np.testing.assert_allclose(by * sizes, expected, rtol=1e-12)
    assert [b == 1 for b in by] == [size == wanted for size, wanted in zip(sizes, expected, strict=True)]


@pytest.mark.parametrize("n_clients", [3, 4, 5, 10])
def test_fewer_than_half_cannot_set_the_limit(n_clients):
    honest = np.linspace(1.0, 1.5, n_clients - (n_clients - 1) // 2)
    for lie in (1e-9, 1e9):
        lies = np.full((n_clients - 1) // 2, lie)
        by = clip_factors(np.concatenate([honest, lies]), 1)
        assert np.all(by[: len(honest)] == 1)
        assert np.all(by[len(honest) :] * lies <= 1.5)
