"""Clipped updates and medians of arrays, against numpy on whole arrays."""

import numpy as np
import pytest

from flaretune.aggregation import pieces
from flaretune.aggregation.pieces import coordinate_median
from flaretune.aggregation.registry import find_rule

SHAPES = {"lora_A": (3, 7), "lora_B": (6, 3), "bias": ()}


def arrays(seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(scale * rng.standard_normal(shape), dtype=np.float32) for name, shape in SHAPES.items()}


def flat(values) -> np.ndarray:
    """All arrays as one vector, float64."""
    return np.concatenate([values[name].reshape(-1).astype(np.float64) for name in SHAPES])


@pytest.fixture(params=[1 << 20, 4])
def in_pieces(request, monkeypatch):
    """Whole arrays at a time, and four numbers."""
    monkeypatch.setattr(pieces, "PIECE", request.param)


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize("n_clients", [1, 2, 5, 10])
def test_the_median_is_numpy_s(n_clients):
    updates = [arrays(seed) for seed in range(n_clients)]
    got = coordinate_median(updates)
    assert {name: values.shape for name, values in got.items()} == SHAPES
    assert all(values.dtype == np.float32 for values in got.values())
    np.testing.assert_allclose(flat(got), np.median([flat(a) for a in updates], axis=0), rtol=1e-6, atol=1e-9)


def test_the_median_of_large_numbers_is_finite():
    assert coordinate_median([{"a": np.full(2, 3e38, np.float32)}] * 4)["a"].tolist() == [np.float32(3e38)] * 2


@pytest.mark.usefixtures("in_pieces")
def test_updates_longer_than_twice_the_median_are_shortened_to_the_median():
    start = arrays(100)
    updates = [{n: start[n] + v for n, v in arrays(s, 0.01).items()} for s in range(5)]
    updates[2] = {name: -1e6 * values for name, values in updates[2].items()}
    updates[4] = {name: start[name] + np.float32(0.06) for name in start}
    lengths = [np.linalg.norm(flat(a) - flat(start)) for a in updates]
    limit = np.sort(lengths)[2]
    assert lengths[2] > lengths[4] > 2 * limit
    limited = find_rule("clipped").limit_updates(start, updates)
    clipped, by = limited.updates, limited.factors
    np.testing.assert_allclose(by, [1, 1, limit / lengths[2], 1, limit / lengths[4]], rtol=1e-9)
    for i in (0, 1, 3):
        assert clipped[i] is updates[i]
    for i in (2, 4):
        step, whole = flat(clipped[i]) - flat(start), flat(updates[i]) - flat(start)
        assert np.linalg.norm(step) == pytest.approx(limit, rel=1e-5)
        np.testing.assert_allclose(step, whole * limit / lengths[i], rtol=1e-3, atol=1e-6)
        assert all(values.dtype == np.float32 for values in clipped[i].values())


def test_where_the_start_is_unknown_the_median_stands_for_it():
    """The first round with --tuning full, which starts from parameters that the server has not seen."""
    updates = [arrays(seed) for seed in range(4)]
    updates.append({name: values + np.float32(1e5) for name, values in updates[0].items()})
    limited = find_rule("clipped").limit_updates({}, updates)
    clipped, by = limited.updates, limited.factors
    assert np.flatnonzero(by < 1).tolist() == [4]
    middle = np.median([flat(a) for a in updates], axis=0)
    lengths = np.sort([np.linalg.norm(flat(a) - middle) for a in updates])
    assert np.linalg.norm(flat(clipped[4]) - middle) == pytest.approx(lengths[2], rel=1e-4)


def test_the_largest_numbers_that_float32_has_can_be_shortened():
    start = {"a": np.zeros(3, np.float32)}
    updates = [{"a": np.full(3, v, np.float32)} for v in (1.0, 1.0, 3e38)]
    np.testing.assert_allclose(find_rule("clipped").limit_updates(start, updates).updates[2]["a"], 1.0, rtol=1e-6)
