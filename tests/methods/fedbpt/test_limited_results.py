"""How far one or two clients of ten that lie can move the search distribution."""

import numpy as np
import pytest

from flaretune.aggregation.registry import RULES, find_rule
from flaretune.methods.fedbpt.cma_es import RoundResults, ServerSearch, limit_results

D, CLIENTS = 60, 10
# pycma's weights of ten points, all recombined by rank: log(10.5) − log(rank), so that they add up to one
WEIGHTS = np.log(10.5) - np.log(np.arange(1, 11))
WEIGHTS /= WEIGHTS.sum()


def round_of(seed: int, n_liars: int = 0, *, distance: float = 1e6, fitness: float = 0.0, square_sum: float = 1e12):
    """Ten results around a start; the first `n_liars` claim the best fitness, far away along the first axis."""
    rng = np.random.default_rng(seed)
    start = rng.standard_normal(D)
    results = RoundResults(
        start + 0.4 * rng.standard_normal((CLIENTS, D)),
        rng.uniform(0.3, 0.9, CLIENTS),
        8 * rng.uniform(0.9, 1.1, CLIENTS),
    )
    results.means[:n_liars] = start + distance * np.eye(D)[0]
    results.fitness[:n_liars] = fitness
    results.sigma_square_sums[:n_liars] = square_sum
    return start, results


def searched_from(start: np.ndarray) -> ServerSearch:
    """A search whose mean is `start`, as one result there leaves it."""
    search = ServerSearch(D, 1.0, 5, seed=1)
    search.update(start[None], np.zeros(1), np.array([8.0]))
    np.testing.assert_allclose(search.distribution.mean, start, atol=1e-12)
    return search


def moved(search: ServerSearch, results: RoundResults) -> np.ndarray:
    return search.update(results.means, results.fitness, results.sigma_square_sums).mean


@pytest.mark.parametrize("n_clients", [1, 2, 3, 10])
def test_honest_results_stay_as_they_are_to_the_bit(n_clients):
    start, results = round_of(3)
    results = RoundResults(
        results.means[:n_clients], results.fitness[:n_clients], results.sigma_square_sums[:n_clients]
    )
    for aggregation in ("mean", "clipped"):
        got, limited = limit_results(find_rule(aggregation), start, results)
        assert not limited.any()
        for name in ("means", "fitness", "sigma_square_sums"):
            assert getattr(got, name).tobytes() == getattr(results, name).tobytes()


@pytest.mark.parametrize("n_liars", [1, 2])
def test_clipped_liars_are_held_to_the_median_and_ranked_last(n_liars):
    start, results = round_of(5, n_liars)
    honest = results.means[n_liars:]
    got, limited = limit_results(find_rule("clipped"), start, results)
    assert limited.tolist() == [True] * n_liars + [False] * (CLIENTS - n_liars)
    lengths = np.sort(np.linalg.norm(honest - start, axis=1))
    limit = lengths[4]  # the fifth of ten, since the liars' are the longest
    square_limit = np.sort(results.sigma_square_sums[n_liars:])[4]
    np.testing.assert_allclose(got.means[:n_liars], [start + limit * np.eye(D)[0]] * n_liars, rtol=1e-9)
    np.testing.assert_allclose(got.sigma_square_sums[:n_liars], square_limit)
    # by hand: the others by their fitness, then the liars, who claimed the best one
    by_rank = honest[np.argsort(results.fitness[n_liars:])]
    expected = start + WEIGHTS[:-n_liars] @ (by_rank - start) + limit * np.eye(D)[0] * WEIGHTS[-n_liars:].sum()
    search = searched_from(start)
    np.testing.assert_allclose(moved(search, got), expected, atol=1e-9)
    assert search.distribution.sigma < 1.5


@pytest.mark.parametrize("n_liars", [1, 2])
def test_liars_that_stay_below_the_limit_move_the_mean_no_further_than_is_said(n_liars):
    start, results = round_of(5)
    median = np.sort(np.linalg.norm(results.means - start, axis=1))[4]
    start, lying = round_of(5, n_liars, distance=1.8 * median, square_sum=8.0)
    got, limited = limit_results(find_rule("clipped"), start, lying)
    assert not limited.any()
    without = WEIGHTS[n_liars:] @ (lying.means[n_liars:][np.argsort(lying.fitness[n_liars:])] - start)
    by_liars = moved(searched_from(start), got) - start - without
    assert np.linalg.norm(by_liars) == pytest.approx(WEIGHTS[:n_liars].sum() * 1.8 * median, rel=1e-6)
    assert WEIGHTS[0] * 2 == pytest.approx(0.56, abs=0.005)  # as the docstring has it
    assert WEIGHTS[-1] == pytest.approx(0.006, abs=0.0005)


@pytest.mark.parametrize("n_liars", [1, 2])
def test_without_a_limit_one_liar_takes_the_mean_away(n_liars):
    """What the limit is for; an honest mean is some 3 away."""
    start, results = round_of(5, n_liars)
    got, limited = limit_results(find_rule("mean"), start, results)
    assert not limited.any()
    assert np.linalg.norm(moved(searched_from(start), got) - start) > 1e5


@pytest.mark.parametrize("n_liars", [1, 2, 4])
@pytest.mark.parametrize("lie", [{}, {"distance": 1.0, "square_sum": 1e-12}])
def test_the_median_stays_in_the_range_of_the_honest(n_liars, lie):
    start, results = round_of(7, n_liars, **lie)
    honest = results.means[n_liars:]
    got, _ = limit_results(find_rule("median"), start, results)
    mean = moved(searched_from(start), got)
    assert np.all(mean >= honest.min(axis=0) - 1e-9)
    assert np.all(mean <= honest.max(axis=0) + 1e-9)
    np.testing.assert_allclose(mean, np.sort(results.means, axis=0)[4:6].mean(axis=0), atol=1e-9)
    square_sums = results.sigma_square_sums[n_liars:]
    assert np.all((square_sums.min() <= got.sigma_square_sums) & (got.sigma_square_sums <= square_sums.max()))


def test_with_the_median_a_claim_of_fitness_has_no_effect():
    start, results = round_of(9)
    claims = RoundResults(results.means, results.fitness[::-1].copy(), results.sigma_square_sums)
    found = []
    for each in (results, claims):
        search = searched_from(start)
        moved(search, limit_results(find_rule("median"), start, each)[0])
        found.append(search.distribution)
    np.testing.assert_array_equal(found[0].mean, found[1].mean)
    assert found[0].sigma == found[1].sigma
    assert found[0].sigma == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("aggregation", RULES)
def test_limiting_leaves_what_it_was_given(aggregation):
    """A resumed run replays the results as they came."""
    start, results = round_of(5, 2)
    limit_results(find_rule(aggregation), start, results)
    again = round_of(5, 2)[1]
    for name in ("means", "fitness", "sigma_square_sums"):
        np.testing.assert_array_equal(getattr(results, name), getattr(again, name))
