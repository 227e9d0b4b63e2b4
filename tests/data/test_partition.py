from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaretune.data.partition import dirichlet_proportions, dirichlet_shares, iid_shares
from flaretune.errors import UserError

SEEDS = st.integers(1, 2**32 - 1)
LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=80).map(np.array)


def class_counts(labels: np.ndarray, shares: list[np.ndarray]) -> np.ndarray:
    """How often each of four classes occurs in each share, shape (n_clients, 4)."""
    return np.array([[int(np.sum(labels[share] == c)) for c in range(4)] for share in shares])


def covers_once(labels: np.ndarray, shares: list[np.ndarray]) -> bool:
    return sorted(np.concatenate(shares).tolist()) == list(range(len(labels)))


@given(LABELS, st.integers(1, 12), SEEDS)
def test_iid_shares_are_alike(labels, n_clients, seed):
    shares = iid_shares(labels, n_clients, seed, allow_empty=True)
    assert len(shares) == n_clients
    assert covers_once(labels, shares)
    counts = class_counts(labels, shares)
    assert np.ptp(counts, axis=0).max() <= 1
    assert np.ptp(counts.sum(axis=1)) <= 1


def test_iid_equal_seeds_equal_shares():
    labels = np.tile([0, 1], 20)
    first, second, other = (iid_shares(labels, 4, seed) for seed in (3, 3, 4))
    assert [share.tolist() for share in first] == [share.tolist() for share in second]
    assert [share.tolist() for share in first] != [share.tolist() for share in other]


def test_iid_with_more_clients_than_examples():
    with pytest.raises(UserError, match="3 examples are not enough for 4 clients"):
        iid_shares(np.array([0, 1, 0]), 4, seed=1)


@given(st.integers(1, 5), st.integers(1, 10), st.floats(1e-3, 1e3), SEEDS)
def test_proportions_are_distributions_over_clients(n_classes, n_clients, alpha, seed):
    proportions = dirichlet_proportions(n_classes, n_clients, alpha, seed)
    assert proportions.shape == (n_classes, n_clients)
    assert (proportions >= 0).all()
    np.testing.assert_allclose(proportions.sum(axis=1), 1.0)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 10.0])
def test_proportions_have_the_dirichlet_mean_and_variance(alpha):
    n_clients = 5
    draws = dirichlet_proportions(20_000, n_clients, alpha, seed=1)
    np.testing.assert_allclose(draws.mean(axis=0), 1 / n_clients, atol=0.01)
    variance = (n_clients - 1) / (n_clients**2 * (n_clients * alpha + 1))
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=0.05)


@given(LABELS, st.integers(1, 8), st.floats(0.05, 50), SEEDS)
def test_dirichlet_shares_follow_the_proportions(labels, n_clients, alpha, seed):
    proportions = dirichlet_proportions(4, n_clients, alpha, seed)
    shares = dirichlet_shares(labels, proportions, seed, alpha=alpha, allow_empty=True)
    assert len(shares) == n_clients
    assert covers_once(labels, shares)
    wanted = (proportions * np.bincount(labels, minlength=4)[:, None]).T  # (n_clients, 4)
    assert np.abs(class_counts(labels, shares) - wanted).max() <= 1 + 1e-9


def test_training_and_development_share_their_skew():
    labels = np.repeat(np.arange(4), 100)
    proportions = dirichlet_proportions(4, 3, 0.5, seed=5)
    train = dirichlet_shares(labels, proportions, seed=1, alpha=0.5)
    development = dirichlet_shares(labels, proportions, seed=2, alpha=0.5)
    assert class_counts(labels, train).tolist() == class_counts(labels, development).tolist()
    assert [share.tolist() for share in train] != [share.tolist() for share in development]


def test_an_empty_share_is_named_unless_allowed():
    labels = np.array([0, 0, 1, 1])
    proportions = np.array([[0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])
    with pytest.raises(UserError, match=r"share 2 of 3 .* alpha = 0\.1; use a larger alpha"):
        dirichlet_shares(labels, proportions, seed=1, alpha=0.1)
    shares = dirichlet_shares(labels, proportions, seed=1, alpha=0.1, allow_empty=True)
    assert [len(share) for share in shares] == [3, 0, 1]
    assert all(share.dtype == np.int64 for share in shares)


def test_bad_arguments():
    for n_clients in (0, -1):
        with pytest.raises(UserError, match=f"{n_clients} clients"):
            iid_shares(np.array([0, 1]), n_clients, seed=1)
        with pytest.raises(UserError, match=f"{n_clients} clients"):
            dirichlet_proportions(2, n_clients, 1.0, seed=1)
    for alpha in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=f"alpha = {alpha}"):
            dirichlet_proportions(2, 3, alpha, seed=1)
    with pytest.raises(ValueError, match="class ids from 0 to 1"):
        dirichlet_shares(np.array([0, 2]), np.full((2, 2), 0.5), seed=1, alpha=1.0)
