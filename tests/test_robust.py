"""The limit that one site is held to, on numbers that can be checked by hand."""

import numpy as np
import pytest

from flaretune.robust import limit_of, shrinkage


@pytest.mark.parametrize(
    ("sizes", "limit"),
    [
        ([3.0], 6.0),
        ([3.0, 100.0], 6.0),  # of an even number the lower of the two in the middle
        ([5.0, 1.0, 100.0], 10.0),
        ([4.0, 1.0, 100.0, 2.0], 4.0),
        ([0.0, 0.0, 7.0], 14.0),  # sites that did not move say nothing of how far one moves
        ([0.0, 0.0], 0.0),
    ],
)
def test_the_limit_is_twice_the_lower_median(sizes, limit):
    assert limit_of(np.array(sizes)) == limit


def test_only_what_is_above_the_limit_shrinks():
    np.testing.assert_array_equal(shrinkage(np.array([4.0, 1.0, 100.0, 2.0, 0.0])), [1.0, 1.0, 0.04, 1.0, 1.0])
    assert shrinkage(np.array([1e300, 1.0, 1.0]))[0] == pytest.approx(2e-300)
    np.testing.assert_array_equal(shrinkage(np.zeros(3)), np.ones(3))


@pytest.mark.parametrize("n_sites", [3, 4, 5, 10])
def test_fewer_than_half_cannot_raise_the_limit_beyond_that_of_the_others(n_sites):
    honest = np.linspace(1.0, 1.5, n_sites - (n_sites - 1) // 2)
    for lie in (1e-9, 1e9):
        lies = np.full((n_sites - 1) // 2, lie)
        assert 2.0 <= limit_of(np.concatenate([honest, lies])) <= 3.0
