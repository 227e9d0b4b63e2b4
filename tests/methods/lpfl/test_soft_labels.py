"""Which labels texts get, and when they move: temperature, prior correction, refresh, noise, agreement."""

from __future__ import annotations

import numpy as np
import pytest

from flaretune.methods.lpfl.soft_labels import SoftLabelPool
from tests.methods.lpfl.pools import make_pool, model, play, softmax


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
