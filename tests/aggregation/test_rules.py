"""What holds for each aggregation rule, over updates that hypothesis makes up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaretune.aggregation.base import federated_average
from flaretune.aggregation.registry import RULES, find_rule
from flaretune.errors import UserError

SIZES = st.lists(st.integers(1, 1000), min_size=1, max_size=12)
SEEDS = st.integers(0, 2**32 - 1)


def some_arrays(rng: np.random.Generator, scale: float = 1.0) -> dict[str, np.ndarray]:
    return {name: (scale * rng.standard_normal(shape)).astype(np.float32) for name, shape in SHAPES.items()}


SHAPES = {"a": (3, 4), "b": (5,)}


def flat(arrays) -> np.ndarray:
    return np.concatenate([np.ravel(arrays[name]).astype(np.float64) for name in SHAPES])


@pytest.mark.parametrize("name", RULES)
@settings(deadline=None)
@given(seed=SEEDS, n=st.integers(1, 12), start_is_known=st.booleans())
def test_identical_updates_are_returned(name, seed, n, start_is_known):
    rng = np.random.default_rng(seed)
    start, update = some_arrays(rng), some_arrays(rng, 10 ** rng.uniform(-3, 3))
    copies = [{key: values.copy() for key, values in update.items()} for _ in range(n)]
    limited = find_rule(name).limit_updates(start if start_is_known else {}, copies)
    assert limited.factors.tolist() == [1.0] * n
    for found in limited.updates:
        for key, values in update.items():
            assert found[key].tobytes() == values.tobytes()
            assert found[key].dtype == np.float32
    average, is_limited = federated_average(find_rule(name), start, copies, rng.uniform(1, 1.9, n))
    assert not is_limited.any()
    np.testing.assert_allclose(flat(average), flat(update), rtol=1e-6)


@settings(deadline=None)
@given(seed=SEEDS, sizes=SIZES)
def test_the_mean_is_numpy_s_average(seed, sizes):
    rng = np.random.default_rng(seed)
    updates = [some_arrays(rng) for _ in sizes]
    got, _ = federated_average(find_rule("mean"), some_arrays(rng), updates, sizes)
    expected = np.average([flat(update) for update in updates], axis=0, weights=sizes)
    np.testing.assert_allclose(flat(got), expected, rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(
    seed=SEEDS,
    n_clients=st.integers(3, 12),
    length=st.floats(0, 1e4),
    size=st.floats(0, 1e9),
)
def test_one_client_moves_the_clipped_average_no_further_than_is_said(seed, n_clients, length, size):
    """Beside honest clients with 24 texts and updates of length 1, in whatever direction and wherever they start."""
    rng = np.random.default_rng(seed)
    start = some_arrays(rng)
    directions = [some_arrays(rng) for _ in range(n_clients)]
    lengths = [length, *[1.0] * (n_clients - 1)]
    updates = [
        {key: (start[key] + reach / np.linalg.norm(flat(d)) * d[key]).astype(np.float32) for key in SHAPES}
        for d, reach in zip(directions, lengths, strict=True)
    ]
    got, limited = federated_average(find_rule("clipped"), start, updates, [size, *[24.0] * (n_clients - 1)])
    weight = min(size, 48.0) / (min(size, 48.0) + 24 * (n_clients - 1))
    honest = (1 - weight) * np.mean([flat(update) - flat(start) for update in updates[1:]], axis=0)
    moved = np.linalg.norm(flat(got) - flat(start) - honest)
    was_shortened = length > 2.001
    assert moved <= (2 if was_shortened else 4) / (n_clients + 1) * (1 + 1e-3) + 1e-5
    assert not limited[1:].any()
    if was_shortened or size > 48:
        assert limited[0]


@pytest.mark.parametrize("name", RULES)
def test_rules_limit_sizes_but_the_mean(name):
    factors = find_rule(name).limit_sizes(np.array([10.0, 12.0, 1e6]), down_to=1)
    assert (factors * [10.0, 12.0, 1e6]).tolist() == pytest.approx([10, 12, 1e6 if name == "mean" else 12])


def test_scalars_are_the_limited_ones_or_the_median_of_those_claimed():
    claimed, limited = np.array([1.0, 5.0, 4.0, 100.0]), np.array([1.0, 5.0, 4.0, 8.0])
    assert {name: rule.scalars(claimed, limited).tolist() for name, rule in RULES.items()} == {
        "mean": [1, 5, 4, 8],
        "clipped": [1, 5, 4, 8],
        "median": [4.5, 4.5, 4.5, 4.5],
    }


def test_rules_are_found_by_their_names():
    assert {name: find_rule(name).name for name in RULES} == {name: name for name in RULES}
    assert find_rule("plain") is find_rule("mean")  # as it was called
    assert all(rule.help for rule in RULES.values())
    for unknown in ("krum", "", None, ["mean"]):
        with pytest.raises(UserError, match=r"aggregation rule .* is unknown; it must be one of mean, clipped, median"):
            find_rule(unknown)
