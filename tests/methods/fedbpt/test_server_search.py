"""The server's update against pycma driven by hand, step by step as the specification says."""

import warnings

import cma
import numpy as np
import pytest
from cma.sigma_adaptation import CMAAdaptSigmaCSA

from flaretune.methods.fedbpt.cma_es import ServerSearch

D = 60


def made_up(n_clients: int, rounds: int, seed: int = 0):
    """Made-up results of the clients: means (M, d), fitness (M,), S (M,) for every round."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        yield rng.standard_normal((n_clients, D)), rng.random(n_clients), 8 * rng.uniform(0.8, 1.2, n_clients)


class ByHand:
    """Steps 4 and 5 of the specification, written out with pycma for a fixed number of clients."""

    def __init__(self, n_clients: int, local_parents: int):
        options = {"popsize": n_clients, "CMA_mu": n_clients, "AdaptSigma": CMAAdaptSigmaCSA, "verbose": -9, "seed": 5}
        self.es = cma.CMAEvolutionStrategy(D * [0.0], 1.0, options)
        self.n_clients, self.local_parents, self.local_sigma = n_clients, local_parents, 1.0

    def update(self, means, fitness, square_sums):
        pooled = np.sqrt(square_sums.sum() / self.n_clients / self.local_parents)
        self.es.sigma = pooled
        self.es.ask()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.es.tell([m.copy() for m in means], list(fitness))
        self.local_sigma = self.local_sigma * self.es.sigma / pooled


@pytest.mark.parametrize(("popsize", "parents"), [(5, 2), (8, 4), (20, 10)])
@pytest.mark.parametrize("n_clients", [2, 4, 10])
def test_rounds_equal_pycma_driven_by_hand(n_clients, popsize, parents):
    search = ServerSearch(D, 1.0, popsize, seed=1)
    by_hand = ByHand(n_clients, parents)
    for means, fitness, square_sums in made_up(n_clients, rounds=8):
        got = search.update(means.copy(), fitness, square_sums)
        by_hand.update(means, fitness, square_sums)
        np.testing.assert_allclose(got.mean, by_hand.es.mean, atol=1e-13)
        np.testing.assert_allclose(got.covariance_matrix(), by_hand.es.sm.C, atol=1e-12)
        assert got.sigma == pytest.approx(by_hand.local_sigma, abs=1e-12)


def test_seed_of_the_server_does_not_change_its_result():
    results = []
    for seed in (1, 2):
        search = ServerSearch(D, 1.0, 5, seed)
        for means, fitness, square_sums in made_up(4, rounds=3):
            search.update(means, fitness, square_sums)
        results.append(search.distribution.mean)
    np.testing.assert_array_equal(*results)


def test_a_mean_far_away_is_pulled_back_to_the_distance_pycma_allows():
    search = ServerSearch(D, 1.0, 5, seed=1)
    direction = np.eye(D)[0]
    got = search.update(np.array([1e6 * direction, 1e6 * direction]), np.array([0.0, 1.0]), np.array([16.0, 16.0]))
    sigma = np.sqrt(16.0 / 2)
    assert np.linalg.norm(got.mean) == pytest.approx(sigma * (np.sqrt(D) + 2 * D / (D + 2)), rel=1e-3)


def test_rounds_with_fewer_results_go_on_from_the_same_state():
    """A client less changes the recombination of its round, and nothing that was learned before."""
    search, full = ServerSearch(D, 1.0, 5, seed=1), ServerSearch(D, 1.0, 5, seed=1)
    rounds = list(made_up(4, rounds=3))
    for means, fitness, square_sums in rounds[:2]:
        search.update(means, fitness, square_sums)
        full.update(means, fitness, square_sums)
    before = search.distribution
    means, fitness, square_sums = (a[:3] for a in rounds[2])
    after = search.update(means, fitness, square_sums)
    # by hand: three results, recombined with the positive weights of a population of six
    best_first = means[np.argsort(fitness)]
    raw = np.log(3.5) - np.log(np.arange(1, 4))
    np.testing.assert_allclose(after.mean, (raw / raw.sum()) @ best_first, atol=1e-12)
    # the covariance moved on from where it was
    assert np.abs(after.covariance_matrix() - before.covariance_matrix()).max() < 0.1
    assert np.abs(before.covariance_matrix() - np.eye(D)).max() > 1e-3


def test_change_of_the_number_of_results_and_back_keeps_the_evolution_paths():
    """Going from 4 to 4 through a rebuilt strategy must equal never having rebuilt it."""
    kept, rebuilt = ServerSearch(D, 1.0, 5, seed=1), ServerSearch(D, 1.0, 5, seed=1)
    for i, (means, fitness, square_sums) in enumerate(made_up(4, rounds=6)):
        if i == 3:
            rebuilt._parents = 0  # as if the last round had had another number of results
        kept.update(means, fitness, square_sums)
        rebuilt.update(means, fitness, square_sums)
        np.testing.assert_allclose(rebuilt.distribution.mean, kept.distribution.mean, atol=1e-12)
        assert rebuilt.distribution.sigma == pytest.approx(kept.distribution.sigma, abs=1e-12)


def test_a_single_answer_moves_the_mean_onto_it():
    search = ServerSearch(D, 1.0, 5, seed=1)
    point = np.random.default_rng(0).standard_normal(D)
    got = search.update(point[None], np.array([0.3]), np.array([8.0]))
    np.testing.assert_allclose(got.mean, point, atol=1e-12)


def test_distribution_handed_out_does_not_change_with_later_rounds():
    search = ServerSearch(D, 1.0, 5, seed=1)
    first = search.update(*next(made_up(4, 1)))
    mean, covariance = first.mean.copy(), first.covariance_matrix().copy()
    search.update(*next(made_up(4, 1, seed=9)))
    np.testing.assert_array_equal(first.mean, mean)
    np.testing.assert_array_equal(first.covariance_matrix(), covariance)


def test_equal_weights_move_the_mean_to_the_average_whatever_the_fitness():
    rng = np.random.default_rng(4)
    means = rng.normal(scale=0.1, size=(5, 8))
    found = []
    for fitness in (np.arange(5.0), -np.arange(5.0), np.zeros(5)):
        search = ServerSearch(dim=8, sigma0=1.0, local_popsize=5, seed=3, equal_weights=True)
        found.append(search.update(means, fitness, np.full(5, 8.0)))
    for distribution in found:
        np.testing.assert_allclose(distribution.mean, means.mean(axis=0), rtol=1e-9, atol=1e-12)
        assert distribution.sigma == found[0].sigma
