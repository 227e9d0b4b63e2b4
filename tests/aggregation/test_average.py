"""The average of the clients' arrays under each rule, against independent computations."""

import numpy as np
import pytest
from nvflare.app_common.aggregators.weighted_aggregation_helper import WeightedAggregationHelper

from flaretune.aggregation.base import federated_average, weighted_mean
from flaretune.aggregation.registry import find_rule

MEAN = find_rule("mean")
N_TEXTS = [
    [8, 8],
    [1, 56, 1000],
    [5, 7],
    [32],
    [4 * i + 1 for i in range(20)],
]


def some_updates(n: int, seed: int = 5) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "lora_A": rng.standard_normal((3, 7)).astype(np.float32),
            "lora_B": rng.lognormal(0, 5, size=(6, 3)).astype(np.float32),  # from 1e-5 to 1e5
        }
        for _ in range(n)
    ]


@pytest.mark.parametrize("n_texts", N_TEXTS)
def test_the_average_is_weighted_by_numbers_of_texts(n_texts):
    updates = some_updates(len(n_texts))
    got, limited = federated_average(MEAN, {}, updates, n_texts)
    assert not limited.any()
    assert list(got) == ["lora_A", "lora_B"]
    for name, values in got.items():
        stacked = np.array([update[name] for update in updates], dtype=np.float64)
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, np.average(stacked, axis=0, weights=n_texts), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("n_texts", N_TEXTS)
def test_the_weighted_mean_has_the_bits_of_nvflare_s(n_texts):
    updates, helper = some_updates(len(n_texts)), WeightedAggregationHelper()
    for i, (update, n) in enumerate(zip(updates, n_texts, strict=True)):
        helper.add(update, n / sum(n_texts), f"site-{i}", 1)
    got = weighted_mean(updates, np.array(n_texts))
    for name, values in helper.get_result().items():
        assert values.tobytes() == got[name].tobytes()


def test_the_average_has_equal_bits_for_equal_updates_and_leaves_them_as_they_are():
    n_texts = [4 * i + 1 for i in range(7)]
    updates, again = some_updates(7), some_updates(7)
    first, second, third = (federated_average(MEAN, {}, u, n_texts)[0] for u in (updates, updates, again))
    for name in first:
        assert first[name].tobytes() == second[name].tobytes() == third[name].tobytes()
        for update, before in zip(updates, some_updates(7), strict=True):
            assert update[name].tobytes() == before[name].tobytes()


def test_an_average_of_equal_arrays_is_these():
    [update] = some_updates(1)
    for name, values in federated_average(MEAN, {}, [update] * 4, [8, 8, 8, 8])[0].items():
        np.testing.assert_array_equal(values, update[name])
    copies = [{name: values.copy() for name, values in update.items()} for _ in range(4)]
    for name, values in federated_average(MEAN, {}, copies, [8, 8, 8, 8])[0].items():
        np.testing.assert_array_equal(values, update[name])


def test_a_number_alone_is_an_array_still():
    got = weighted_mean([{"bias": np.array(x, np.float32)} for x in (1.0, 4.0)], [1, 2])
    assert (type(got["bias"]), got["bias"].shape, got["bias"].dtype) == (np.ndarray, (), np.float32)
    assert got["bias"] == pytest.approx(3.0)


def test_large_numbers_have_a_finite_average():
    """Each is finite; so is their mean, though not their sum."""
    updates = some_updates(2)
    for update in updates:
        update["lora_B"][:] = 3e38
    got, _ = federated_average(MEAN, {}, updates, [24, 24])
    np.testing.assert_allclose(got["lora_B"], np.full((6, 3), 3e38), rtol=1e-6)


# ---- with clients that lie ----


def ten_clients(n_liars: int):
    """A start, and ten updates near it of clients with 24 to 28 texts.

    Liars, the first of them, send reversed updates, scaled up, and claim to have trained on very many texts.
    """
    rng = np.random.default_rng(11)
    start = {name: rng.standard_normal((5, 4)).astype(np.float32) for name in ("lora_A", "lora_B")}
    updates = [
        {name: v + (0.1 * rng.standard_normal(v.shape)).astype(np.float32) for name, v in start.items()}
        for _ in range(10)
    ]
    n_texts = np.array([24.0 + i % 5 for i in range(10)])
    for i in range(n_liars):
        updates[i] = {name: start[name] - 1000 * (values - start[name]) for name, values in updates[i].items()}
        n_texts[i] = 1e12
    return start, updates, n_texts


def flat(arrays) -> np.ndarray:
    return np.concatenate([arrays[name].reshape(-1).astype(np.float64) for name in ("lora_A", "lora_B")])


def test_honest_clients_are_averaged_as_before_to_the_bit():
    mean, clipped = (federated_average(find_rule(name), *ten_clients(0)) for name in ("mean", "clipped"))
    assert not mean[1].any()
    assert not clipped[1].any()
    for name in mean[0]:
        assert mean[0][name].tobytes() == clipped[0][name].tobytes()


@pytest.mark.parametrize("n_liars", [1, 2])
def test_liars_move_the_clipped_average_no_further_than_is_said(n_liars):
    start, updates, n_texts = ten_clients(n_liars)
    is_liar = np.arange(10) < n_liars
    got, limited = federated_average(find_rule("clipped"), start, updates, n_texts)
    assert limited.tolist() == is_liar.tolist()
    steps = np.array([flat(update) - flat(start) for update in updates])
    lengths = np.linalg.norm(steps, axis=1)
    limit = np.sort(lengths)[4]
    n_texts = np.minimum(n_texts, 2 * np.sort(n_texts)[4])
    limited_steps = np.where(is_liar[:, None], steps * (limit / lengths)[:, None], steps)
    expected = flat(start) + np.average(limited_steps, axis=0, weights=n_texts)
    np.testing.assert_allclose(flat(got), expected, atol=1e-6)
    by_the_honest = np.average(steps[n_liars:], axis=0, weights=n_texts[n_liars:])
    by_liars = np.linalg.norm(expected - flat(start) - by_the_honest * n_texts[n_liars:].sum() / n_texts.sum())
    # FACTOR / (M + FACTOR − 1) lengths each, were all the same; the honest ones differ by less than a fifth
    assert by_liars < n_liars * 2 / 11 * limit * 1.2
    mean, _ = federated_average(MEAN, *ten_clients(n_liars))
    assert np.linalg.norm(flat(mean) - flat(start)) > 300 * limit


@pytest.mark.parametrize("n_liars", [0, 1, 2, 4])
def test_the_median_stays_in_the_range_of_the_honest_whatever_is_claimed(n_liars):
    start, updates, n_texts = ten_clients(n_liars)
    got, limited = federated_average(find_rule("median"), start, updates, n_texts)
    assert limited.tolist() == [i < n_liars for i in range(10)]
    everything = np.array([flat(update) for update in updates])
    np.testing.assert_allclose(flat(got), np.median(everything, axis=0), rtol=1e-6)
    assert np.all(flat(got) >= everything[n_liars:].min(axis=0) - 1e-6)
    assert np.all(flat(got) <= everything[n_liars:].max(axis=0) + 1e-6)
