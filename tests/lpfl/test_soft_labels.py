from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaretune.lpfl.soft_labels import SoftLabelPool, SoftLabelSettings

PLAIN = {
    "soft_portion": 0.25,
    "soft_select": "order",
    "soft_temperature": 1.0,
    "soft_refresh": 0,
    "soft_prior": "as_is",
    "soft_noise": 0.0,
    "seed": 7,
}


def make_pool(n_texts: int, n_classes: int = 2, site: str = "site-1", **changes: Any) -> SoftLabelPool:
    return SoftLabelPool(n_texts, n_classes, SoftLabelSettings(**{**PLAIN, **changes}), site)


def model(n_texts: int, n_classes: int = 2, seed: int = 0) -> np.ndarray:
    """Logits of a made-up model for every text of a pool, float32 (n_texts, n_classes)."""
    return np.random.default_rng(seed).normal(scale=2.0, size=(n_texts, n_classes)).astype(np.float32)


def play(pool: SoftLabelPool, logits: np.ndarray, round_number: int) -> list[int]:
    """A round with this model: the texts that moved in it."""
    before = len(pool.indices)
    wanted = pool.wanted()
    pool.label(wanted, logits[wanted], round_number)
    return pool.indices[before:].tolist()


def softmax(row: Any, temperature: float = 1.0) -> list[float]:
    powers = [math.exp(float(score) / temperature) for score in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("n_classes", [2, 3, 14])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("soft_select", ["order", "confident", "balanced"])
def test_labels_are_the_softmax_of_the_models_logits_over_the_temperature(n_classes, temperature, soft_select):
    pool = make_pool(20, n_classes, soft_temperature=temperature, soft_select=soft_select)
    logits = model(20, n_classes)
    play(pool, logits, 1)
    assert pool.indices.dtype == np.int64
    assert pool.labels.dtype == np.float64
    assert pool.labels.shape == (5, n_classes)
    expected = [softmax(logits[text], temperature) for text in pool.indices]
    np.testing.assert_allclose(pool.labels, expected, rtol=1e-12)


def test_large_logits_and_a_tiny_temperature_give_labels_all_on_one_class():
    pool = make_pool(2, 3, soft_portion=1.0, soft_temperature=1e-308)
    with np.errstate(over="ignore"):
        play(pool, np.array([[900.0, 899.0, -900.0], [0.0, 0.0, 5.0]]), 1)
    assert pool.labels.tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("soft_select", ["order", "confident", "balanced"])
@pytest.mark.parametrize("soft_refresh", [0, 1])
@pytest.mark.parametrize(
    ("n_texts", "portion", "sizes"),
    [
        (20, 0.25, [5, 5, 5, 5]),
        (20, 1.0, [20]),
        (10, 0.25, [3, 3, 3, 1]),  # 2.5 is rounded up
        (9, 0.25, [2, 2, 2, 2, 1]),
        (3, 0.1, [1, 1, 1]),
        (1, 0.01, [1]),
        (10, 0.1, [1] * 10),
    ],
)
def test_every_text_moves_once_a_portion_a_round(soft_select, soft_refresh, n_texts, portion, sizes):
    pool = make_pool(n_texts, 3, soft_select=soft_select, soft_refresh=soft_refresh, soft_portion=portion)
    moved: list[int] = []
    for number, size in enumerate(sizes, start=1):
        left = [text for text in range(n_texts) if text not in moved]
        assert pool.wanted().tolist() == (list(range(n_texts)) if soft_refresh else left)
        new = play(pool, model(n_texts, 3, seed=number), number)
        assert len(new) == size
        moved += new
        assert pool.indices.tolist() == moved
    assert sorted(moved) == list(range(n_texts))
    assert pool.wanted().tolist() == (list(range(n_texts)) if soft_refresh else [])
    assert play(pool, model(n_texts, 3), len(sizes) + 1) == []
    assert pool.indices.tolist() == moved


def test_a_round_that_is_played_again_moves_nothing_more():
    pool = make_pool(8)
    assert play(pool, model(8), 2) == [0, 1]
    labels = pool.labels
    assert play(pool, model(8, seed=1), 2) == []
    assert play(pool, model(8, seed=1), 1) == []
    np.testing.assert_array_equal(pool.labels, labels)
    assert play(pool, model(8), 3) == [2, 3]


# logits by text; what moves first, the others following as they are named
@pytest.mark.parametrize(
    ("soft_select", "logits", "order"),
    [
        ("order", [[0, 1], [9, 0], [0, 5], [0, 0]], [0, 1, 2, 3]),
        ("confident", [[0, 1], [9, 0], [0, 5], [0, 0]], [1, 2, 0, 3]),
        ("confident", [[0, 1], [1, 0], [2, 3], [0, 2]], [3, 0, 1, 2]),  # ties by index
        ("confident", [[0, 60], [0, 50], [0, 70], [0, 40]], [2, 0, 1, 3]),  # probabilities that are all rounded to 1
        # q by text (.5, .3, .2), (.4, .4, .2), (.1, .2, .7), (.45, .1, .45)
        ("confident", np.log([[5, 3, 2], [4, 4, 2], [1, 2, 7], [4.5, 1, 4.5]]), [2, 0, 3, 1]),
        ("balanced", np.log([[5, 3, 2], [4, 4, 2], [1, 2, 7], [4.5, 1, 4.5]]), [0, 1, 2, 3]),
        ("balanced", [[0, 1], [9, 0], [0, 5], [0, 0]], [1, 2, 3, 0]),
        # everything positive: the least positive ones are the negative class's share
        ("balanced", [[0, 4], [0, 1], [0, 3], [0, 2]], [1, 0, 3, 2]),
        ("balanced", [[0, 40], [0, 50], [0, 60], [0, 70]], [0, 3, 1, 2]),
        ("balanced", [[1, 1], [1, 1], [1, 1], [1, 1]], [0, 1, 2, 3]),
    ],
)
@pytest.mark.parametrize("portion", [0.25, 0.5, 0.75, 1.0])
def test_which_texts_move_first(soft_select, logits, order, portion):
    logits = np.asarray(logits, dtype=np.float64)
    pool = make_pool(4, logits.shape[1], soft_select=soft_select, soft_portion=portion)
    for number in range(4):
        play(pool, logits, number)
    assert pool.indices.tolist() == order


def test_texts_of_equal_confidence_in_different_classes_move_by_index():
    rng = np.random.default_rng(1)
    same = rng.normal(size=7)
    pool = make_pool(30, 7, soft_select="confident")
    assert play(pool, np.array([rng.permutation(same) for _ in range(30)]), 1) == list(range(8))


@pytest.mark.parametrize("scale", [1.0, 0.02, 50.0])
@pytest.mark.parametrize(
    ("n_classes", "portion", "counts"),
    [
        (2, 0.1, [2, 2]),
        (2, 0.125, [3, 2]),
        (3, 0.15, [2, 2, 2]),
        (3, 0.2, [3, 3, 2]),
        (4, 0.025, [1, 0, 0, 0]),
    ],
)
def test_balanced_shares_of_a_model_that_calls_everything_the_last_class(scale, n_classes, portion, counts):
    logits = model(40, n_classes) * scale
    logits[:, -1] += 100 * scale
    assert (logits.argmax(axis=1) == n_classes - 1).all()
    pool = make_pool(40, n_classes, soft_select="balanced", soft_portion=portion)
    moved = play(pool, logits, 1)
    # in turn, each class takes the text left with its largest q, so with its largest q / (1 - q); decimals neither
    # overflow nor round q to 1
    powers = [[Decimal(float(score)).exp() for score in row] for row in logits]
    expected: list[int] = []
    for slot in range(sum(counts)):
        c = slot % n_classes
        odds = {text: row[c] / sum(row[:c] + row[c + 1 :]) for text, row in enumerate(powers) if text not in expected}
        expected.append(max(odds, key=odds.__getitem__))
    assert moved == expected


@given(st.integers(2, 4), st.integers(1, 40), st.floats(0.02, 1.0), st.integers(0, 2**32 - 1), st.floats(-20, 20))
def test_balanced_rounds_stay_even_over_the_job(n_classes, n_texts, portion, seed, bias):
    """With scores so far apart that every text has one class of its own, an even pool moves evenly."""
    own_class = np.random.default_rng(seed).permutation(np.arange(n_texts * n_classes) % n_classes)
    logits = 100.0 * np.eye(n_classes)[own_class]
    logits[:, 0] += bias  # the same for all texts: it changes no ranking by class
    pool = make_pool(len(own_class), n_classes, soft_select="balanced", soft_portion=portion)
    for number in range(4):
        play(pool, logits, number)
        counts = np.bincount(own_class[pool.indices], minlength=n_classes)
        assert np.ptp(counts) <= 1


def test_prior_correction_against_an_example_by_hand():
    # p = (.1, .9) and (.5, .5): odds 9 and 1 for class 1. Taking the mean of the logs off divides them by their
    # geometric mean, 3: odds 3 and 1/3.
    p = [[0.1, 0.9], [0.5, 0.5]]
    pool = make_pool(2, soft_portion=1.0, soft_prior="uniform")
    pool.label(pool.wanted(), np.log(p) + np.array([[5.0], [-3.0]]), 1)  # logits: log-probabilities plus any number
    np.testing.assert_allclose(pool.labels, [[0.25, 0.75], [0.75, 0.25]], rtol=1e-12)


def test_prior_correction_comes_before_the_temperature_and_the_choice():
    logits = model(12, 3) + np.array([0, 30, 60])
    fair, skewed = (
        make_pool(12, 3, soft_prior=prior, soft_temperature=2.0, soft_select="confident")
        for prior in ("uniform", "as_is")
    )
    centred = logits.astype(np.float64) - [sum(float(row[c]) for row in logits) / 12 for c in range(3)]
    q = [softmax(row, 2.0) for row in centred]
    assert play(fair, logits, 1) == sorted(range(12), key=lambda text: -max(q[text]))[:3]
    np.testing.assert_allclose(fair.labels, [q[text] for text in fair.indices], rtol=1e-6)
    play(skewed, logits, 1)
    assert (skewed.labels[:, 2] > 0.99).all()


def test_prior_correction_is_over_the_whole_pool_in_every_round():
    """Over the texts that are left alone it would be over ever fewer, a single one at last."""
    first, second = model(8), model(8, seed=1)
    pool = make_pool(8, soft_prior="uniform", soft_portion=0.5)
    play(pool, first, 1)
    assert pool.wanted().tolist() == list(range(8))
    play(pool, second, 2)
    means = [sum(float(row[c]) for row in second) / 8 for c in range(2)]
    np.testing.assert_allclose(pool.labels[4:], [softmax(row - means) for row in second[4:].astype(np.float64)])
    assert pool.wanted().tolist() == []  # all have moved


def test_without_refresh_labels_stay_and_with_it_they_follow_the_newest_model():
    first, second, third = (model(8, seed=seed) for seed in range(3))
    kept, fresh = make_pool(8, soft_portion=0.5), make_pool(8, soft_portion=0.5, soft_refresh=1)
    for number, logits in enumerate((first, second, third)):
        play(kept, logits, number)
        play(fresh, logits, number)
    expected = [softmax(row) for row in (*first[:4], *second[4:])]
    np.testing.assert_allclose(kept.labels, expected, rtol=1e-12)
    assert fresh.indices.tolist() == list(range(8))
    np.testing.assert_allclose(fresh.labels, [softmax(row) for row in third], rtol=1e-12)


def test_refreshed_labels_are_in_the_order_in_which_the_texts_moved():
    logits = np.array([[0.0, 1.0], [0.0, 3.0], [0.0, 2.0], [0.0, 4.0]])
    pool = make_pool(4, soft_select="confident", soft_refresh=1)
    play(pool, logits, 1)
    play(pool, logits, 2)
    play(pool, -logits, 3)
    assert pool.indices.tolist() == [3, 1, 2]
    np.testing.assert_allclose(pool.labels, [softmax(-logits[text]) for text in (3, 1, 2)], rtol=1e-12)


def noisy_classes(pool: SoftLabelPool) -> dict[int, int]:
    """Text → class, of the texts whose label is all on one class, which no softmax of `model` is."""
    rows = zip(pool.indices.tolist(), pool.labels.tolist(), strict=True)
    return {text: row.index(1.0) for text, row in rows if 1.0 in row}


@pytest.mark.parametrize(("noise", "count"), [(0.0, 0), (0.2, 8), (0.5, 20), (0.76, 30), (1.0, 40)])
def test_the_share_of_noise(noise, count):
    pool, logits = make_pool(40, 3, soft_portion=1.0, soft_noise=noise), model(40, 3)
    play(pool, logits, 1)
    noisy = noisy_classes(pool)
    assert len(noisy) == count
    for text, row in zip(pool.indices.tolist(), pool.labels, strict=True):
        expected = np.eye(3)[noisy[text]] if text in noisy else softmax(logits[text])
        np.testing.assert_allclose(row, expected, rtol=1e-12)


def test_noise_is_the_same_in_whatever_way_the_texts_move():
    found = []
    for changes in (
        {"soft_portion": 1.0},
        {"soft_select": "balanced"},
        {"soft_select": "confident", "soft_refresh": 1},
    ):
        pool = make_pool(40, 3, soft_noise=0.4, **changes)
        for number in range(6):
            play(pool, model(40, 3, seed=number), number)
        found.append(noisy_classes(pool))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 16


def test_noise_is_drawn_from_seed_and_site_over_all_classes_and_grows_from_less_noise():
    def noise(**changes) -> dict[int, int]:
        pool = make_pool(60, 3, **{"soft_portion": 1.0, "soft_noise": 0.5, **changes})
        play(pool, model(60, 3), 1)
        return noisy_classes(pool)

    assert noise() != noise(seed=8)
    assert noise() != noise(site="site-2")
    assert set(noise().values()) == {0, 1, 2}
    assert noise(soft_noise=0.2).items() < noise().items() < noise(soft_noise=1.0).items()


def test_noise_has_no_say_in_which_texts_move():
    moved = []
    for noise in (0.0, 1.0):
        pool = make_pool(20, soft_select="confident", soft_noise=noise)
        moved.append([play(pool, model(20), number) for number in range(4)])
    assert moved[0] == moved[1]


@pytest.mark.parametrize("soft_refresh", [0, 1])
@pytest.mark.parametrize("soft_select", ["order", "confident", "balanced"])
@pytest.mark.parametrize("stop", [0, 1, 3, 5])
def test_a_process_started_anew_goes_on_as_if_nothing_had_been(soft_select, soft_refresh, stop):
    changes = {"soft_select": soft_select, "soft_refresh": soft_refresh, "soft_noise": 0.3, "soft_prior": "uniform"}
    whole, first, second = (make_pool(21, 3, **changes) for _ in range(3))
    for number in range(6):
        play(whole, model(21, 3, seed=number), number)
    for number in range(stop):
        play(first, model(21, 3, seed=number), number)
    second.restore(first.state())
    play(second, model(21, 3, seed=99), stop - 1)  # a round that was there before, here without refresh
    if soft_refresh:
        second.restore(first.state())
    for number in range(stop, 6):
        play(second, model(21, 3, seed=number), number)
    assert second.indices.tolist() == whole.indices.tolist()
    np.testing.assert_array_equal(second.labels, whole.labels)


def test_what_is_given_out_is_no_way_in():
    pool = make_pool(8)
    play(pool, model(8), 1)
    before = pool.state()
    for array in (pool.indices, pool.labels, *pool.state().values()):
        array[...] = 5
    again = make_pool(8)
    again.restore(before)
    assert pool.indices.tolist() == again.indices.tolist() == [0, 1]
    np.testing.assert_array_equal(pool.labels, again.labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "has moved, labels and last_round, not"),
        ({"more": np.zeros(1)}, "has moved, labels and last_round, not"),
        ({"moved": np.array([0, 0])}, "each once"),
        ({"moved": np.array([0.0, 1.0])}, "must be integers"),
        ({"moved": np.array([[0, 1]])}, "in a row"),
        ({"moved": np.array([0, 8])}, "names text 8 of a pool of 8"),
        ({"moved": np.array([0, -1])}, "names text -1 of a pool of 8"),
        ({"moved": np.array([0])}, r"shape \(2, 2\) and type float64 are no probabilities of 1 texts"),
        ({"labels": np.full((2, 3), 1 / 3)}, r"shape \(2, 3\) .* 2 texts and 2 classes"),
        ({"labels": np.array([[1, 0], [0, 1]])}, "type int64"),
        ({"labels": np.array([[0.5, 0.6], [0.5, 0.5]])}, "sum to 1"),
        ({"labels": np.array([[1.5, -0.5], [0.5, 0.5]])}, "sum to 1"),
        ({"labels": np.array([[np.nan, 0.5], [0.5, 0.5]])}, "sum to 1"),
        ({"last_round": np.array(1)}, "last round .* one integer"),
        ({"last_round": np.array([1.0])}, "last round .* one integer"),
    ],
)
def test_a_state_of_something_else_is_refused_and_changes_nothing(change, message):
    pool = make_pool(8)
    play(pool, model(8), 1)
    before = pool.state()
    state = {name: array for name, array in {**before, **change}.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        pool.restore(state)
    for name, array in pool.state().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("logits", "truth", "expected"),
    [
        ([[0, 1], [2, 0], [0, 1], [1, 0]], [1, 0, 0, 0], (3, 4)),
        ([[0, 1], [2, 0], [0, 1], [1, 0]], [0, 1, 0, 1], (0, 4)),
        ([[0, 1], [2, 0], [0, 1], [1, 0]], [1, 0, 1, 0], (4, 4)),
    ],
)
def test_agreement_counts_the_labels_that_are_right(logits, truth, expected):
    pool = make_pool(4, soft_portion=1.0)
    assert pool.agreement(np.array(truth)) == (0, 0)
    play(pool, np.array(logits, dtype=float), 1)
    assert pool.agreement(np.array(truth)) == expected


def test_agreement_is_of_the_texts_that_have_moved_in_whatever_order():
    logits = np.array([[0.0, 1.0], [0.0, 3.0], [2.0, 0.0], [4.0, 0.0]])
    pool = make_pool(4, soft_select="confident", soft_portion=0.5)
    play(pool, logits, 1)
    assert pool.indices.tolist() == [3, 1]
    assert pool.agreement(np.array([0, 0, 1, 0])) == (1, 2)  # text 3 is right, text 1 is not
    with pytest.raises(ValueError, match=r"shape \(3,\) do not fit a pool of 4 texts"):
        pool.agreement(np.array([0, 0, 1]))


def test_an_empty_pool_has_nothing_to_do():
    pool = make_pool(0, soft_refresh=1, soft_prior="uniform", soft_noise=0.5)
    assert play(pool, np.empty((0, 2)), 1) == []
    assert pool.wanted().shape == (0,)
    assert (pool.indices.shape, pool.labels.shape) == ((0,), (0, 2))
    assert pool.agreement(np.empty(0, dtype=np.int64)) == (0, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("soft_refresh", [0, 1])
def test_logits_that_are_not_finite_are_refused_whole(bad, soft_refresh):
    pool = make_pool(8, soft_refresh=soft_refresh)
    play(pool, model(8), 1)
    before = pool.labels
    logits = model(8)
    logits[[5, 7], 1] = bad
    with pytest.raises(ValueError, match=r"answer to 2 of \d unlabelled texts is not finite \(first: text 5\)"):
        play(pool, logits, 2)
    np.testing.assert_array_equal(pool.labels, before)
    assert pool.indices.tolist() == [0, 1]
    assert play(pool, model(8), 2) == [2, 3]


@pytest.mark.parametrize(
    ("indices", "shape", "message"),
    [
        ([0, 1, 2], (3, 2), "wants 4 texts labelled, but was given others"),
        ([1, 0, 2, 3], (4, 2), "was given others"),
        ([0, 1, 2, 3], (4, 3), r"shape \(4, 3\) do not fit 4 texts and 2 classes"),
        ([0, 1, 2, 3], (3, 2), r"shape \(3, 2\) do not fit 4 texts"),
        ([0, 1, 2, 3], (8,), r"shape \(8,\) do not fit 4 texts"),
    ],
)
def test_answers_to_something_else_are_refused(indices, shape, message):
    pool = make_pool(4)
    with pytest.raises(ValueError, match=message):
        pool.label(np.array(indices), np.zeros(shape), 1)
    assert len(pool.indices) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"soft_portion": 0.0},
        {"soft_portion": 1.1},
        {"soft_portion": math.nan},
        {"soft_select": "random"},
        {"soft_temperature": 0.0},
        {"soft_temperature": math.inf},
        {"soft_prior": "flat"},
        {"soft_noise": -0.1},
        {"soft_noise": 1.1},
    ],
)
def test_settings_out_of_range_are_named(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"^{name} .*: must be "):
        make_pool(4, **change)


def test_pools_that_cannot_be():
    for n_texts, n_classes in ((-1, 2), (4, 1)):
        with pytest.raises(ValueError, match=f"{n_texts} texts for {n_classes} classes"):
            make_pool(n_texts, n_classes)
