import cma
import numpy as np
import pytest

from flaretune.methods.fedbpt.cma_es import ServerSearch, limit_norm, local_search
from flaretune.methods.fedbpt.distribution import Distribution

D = 12


def sphere(points: np.ndarray) -> np.ndarray:
    return ((points - 2.0) ** 2).sum(axis=1)


def run(**changes):
    options = {"generations": 8, "popsize": 5, "seed": 3, **changes}
    return local_search(options.pop("start", Distribution(np.zeros(D), 1.0)), sphere, **options)


def test_search_gets_better_and_reports_the_fitness_of_its_mean():
    result = run(generations=60)
    assert result.fitness < 0.2 * sphere(np.zeros((1, D)))[0]
    assert result.fitness == pytest.approx(sphere(result.mean[None])[0])
    assert result.queries == 60 * 5 + 1


def test_equal_seeds_equal_results_and_numpy_global_state_is_left_alone():
    np.random.seed(7)
    expected = np.random.random()
    np.random.seed(7)
    first, again, other = run(), run(), run(seed=4)
    np.testing.assert_array_equal(first.mean, again.mean)
    assert not np.array_equal(first.mean, other.mean)
    assert np.random.random() == expected


def test_step_sizes_are_summed_as_each_generation_starts():
    """Against pycma run by hand on the same points."""
    recorded = []

    def recording(points):
        recorded.append(points.copy())
        return sphere(points)

    result = local_search(Distribution(np.zeros(D), 0.7), recording, generations=5, popsize=6, seed=3)
    es = cma.CMAEvolutionStrategy(
        D * [0.0], 0.7, {"popsize": 6, "verbose": -9, "seed": 1, "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA}
    )
    total = 0.0
    for points in recorded[:-1]:
        total += es.sigma**2
        es.ask()
        es.tell(list(points), sphere(points).tolist(), check_points=False)
    assert result.sigma_square_sum == pytest.approx(total, rel=1e-10)
    np.testing.assert_allclose(result.mean, es.mean, atol=1e-12)


@pytest.mark.parametrize("form", ["diagonal", "full"])
def test_points_are_drawn_from_the_covariance_that_was_sent(form):
    variances = np.array([100.0, 1.0, 0.01])
    covariance = variances if form == "diagonal" else np.diag(variances)
    seen = []

    def flat(points):
        seen.append(points)
        return np.arange(len(points), dtype=float)

    start = Distribution(np.zeros(3), 2.0, covariance)
    local_search(start, flat, generations=1, popsize=4000, seed=0)
    np.testing.assert_allclose(seen[0].std(axis=0), 2.0 * np.sqrt(variances), rtol=0.08)


def test_correlations_are_taken_over():
    covariance = np.array([[1.0, 0.9], [0.9, 1.0]])
    seen = []

    def flat(points):
        seen.append(points)
        return np.arange(len(points), dtype=float)

    local_search(Distribution(np.zeros(2), 1.0, covariance), flat, generations=1, popsize=4000, seed=0)
    assert np.corrcoef(seen[0].T)[0, 1] == pytest.approx(0.9, abs=0.03)


def test_bound_keeps_every_point_inside():
    seen = []

    def recording(points):
        seen.append(points)
        return sphere(points)

    local_search(Distribution(np.zeros(D), 1.0), recording, generations=10, popsize=6, seed=1, bound=0.5)
    assert np.abs(np.concatenate(seen)).max() <= 0.5 + 1e-12


@pytest.mark.parametrize("bound", [0.1, 0.3, 1.1])  # which float32 rounds up
def test_a_mean_on_the_bound_is_within_it_after_its_journey_too(bound):
    start = np.full(D, np.float32(bound)).astype(np.float64)
    assert start[0] > bound
    found = local_search(Distribution(start, 1.0), sphere, generations=3, popsize=6, seed=1, bound=bound)
    assert np.abs(found.mean).max() <= bound
    search = ServerSearch(D, 1.0, local_popsize=6, seed=1, bound=bound)
    for _ in range(3):
        moved = search.update(np.stack([start, -start, 2 * start]), np.array([1.0, 2.0, 3.0]), np.ones(3))
        assert np.abs(moved.mean).max() <= bound


def test_norm_limit_shortens_points_and_mean():
    seen = []

    def recording(points):
        seen.append(points)
        return sphere(points)

    result = local_search(Distribution(np.zeros(D), 1.0), recording, generations=10, popsize=6, seed=1, norm_limit=1.5)
    assert np.linalg.norm(np.concatenate(seen), axis=1).max() <= 1.5 + 1e-12
    assert np.linalg.norm(result.mean) <= 1.5 + 1e-12


def test_limit_norm_leaves_short_points_and_zero_alone():
    points = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    np.testing.assert_allclose(limit_norm(points, 1.0), [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])
    assert limit_norm(points, None) is points


def test_losses_that_are_not_finite_stop_the_search():
    with pytest.raises(FloatingPointError, match="loss of nan: try --dtype float32"):
        local_search(
            Distribution(np.zeros(D), 1.0), lambda p: np.full(len(p), np.nan), generations=2, popsize=5, seed=1
        )
