"""Ridge regression from sums, beside the same regression over all texts in one place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaretune.errors import UserError
from flaretune.methods.verbalizer.ridge import (
    LAMBDAS,
    TEMPERATURES,
    choose_head,
    choose_words,
    leave_one_out,
    losses,
    separation,
    solve,
    solve_noised,
)
from flaretune.methods.verbalizer.statistics import GramSums, added, gram_sums, word_statistics


def centralised(features, labels, n_classes, shrinkage, toward=0.0):
    """Weights and bias of the least squares problem with λ‖W − W₀‖² and a free bias, as one stacked system."""
    n, f = features.shape
    rows = np.vstack(
        [np.hstack([features, np.ones((n, 1))]), np.hstack([np.sqrt(shrinkage) * np.eye(f), np.zeros((f, 1))])]
    )
    targets = np.vstack([np.eye(n_classes)[labels], np.sqrt(shrinkage) * (np.zeros((f, n_classes)) + toward)])
    solution, *_ = np.linalg.lstsq(rows, targets, rcond=None)
    return solution[:-1], solution[-1]


def texts(seed, n, f, n_classes):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    return rng.normal(size=(n, f)) + np.eye(max(f, n_classes))[labels][:, :f], labels


@given(
    seed=st.integers(0, 1000),
    n_classes=st.integers(2, 4),
    f=st.integers(1, 12),
    owners=st.lists(st.integers(0, 4), min_size=2, max_size=40),
    by_class=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_for_any_split_over_clients_it_equals_that_of_all_texts_together(seed, n_classes, f, owners, by_class):
    """Clients of one class only, of a single text, of none; fewer texts than features; classes without a text."""
    features, labels = texts(seed, len(owners), f, n_classes)
    owner = labels if by_class else np.array(owners)
    parts = [gram_sums(features[owner == k], labels[owner == k], n_classes) for k in range(6)]
    ridge = solve(added(parts))
    for i in (0, len(LAMBDAS) // 2, -1):
        weights, bias = centralised(features, labels, n_classes, ridge.shrinkages[i])
        np.testing.assert_allclose(ridge.weights[i], weights, atol=1e-6)
        np.testing.assert_allclose(ridge.biases[i], bias, atol=1e-6)


@pytest.mark.parametrize("n", [4, 40])
def test_it_shrinks_towards_weights_of_a_size_that_more_texts_make_smaller(n):
    features, labels = texts(2, n, 5, 2)
    direction = np.random.default_rng(1).normal(size=(5, 2))
    ridge = solve(gram_sums(features, labels, 2), direction)
    scores = (features - features.mean(axis=0)) @ direction
    toward = direction / np.sqrt(np.mean(np.square(scores))) * 0.2 * 16 / (16 + n)  # 8 texts of each of two classes
    for i, shrinkage in enumerate(ridge.shrinkages[6:], start=6):
        weights, bias = centralised(features, labels, 2, shrinkage, toward)
        np.testing.assert_allclose(ridge.weights[i], weights, atol=1e-6)
        np.testing.assert_allclose(ridge.biases[i], bias, atol=1e-6)
    much_larger = solve(gram_sums(features, labels, 2), 1e4 * direction)
    np.testing.assert_allclose(much_larger.weights, ridge.weights, atol=1e-9)


def test_directions_that_noise_made_negative_leave_the_weights_that_it_shrinks_towards_as_they_are():
    """Noised sums whose Gram matrix is diagonal: each word's weights are those of a regression of one word."""
    gram, cross = np.diag([4.0, 0.0, -4.0]), np.array([[3.0, -1.0], [2.0, 0.0], [2.0, 0.0]])
    toward = np.array([[1.0, -1.0], [1.0, -1.0], [1.0, -1.0]])
    found = solve_noised(GramSums(np.zeros(2), cross, gram), 8.0, toward)
    # (λ w₀ + Σφy) / (λ + Σφ²), targets centred
    expected = [(8 + 2) / (8 + 4), (8 + 1) / 8, (8 + 1) / 8]
    np.testing.assert_allclose(found.weights, [[[w, -w] for w in expected]], rtol=1e-12)


def test_what_says_the_same_of_every_text_is_not_shrunk_towards():
    features, labels = texts(4, 20, 3, 2)
    features[:, 2] = 1.5
    sums = gram_sums(features, labels, 2)
    direction = np.array([[0.0, 0.0], [0.0, 0.0], [-1.0, 1.0]])
    np.testing.assert_array_equal(solve(sums, direction).weights, solve(sums).weights)


@pytest.mark.parametrize(("n", "f"), [(12, 3), (6, 10)])
def test_leave_one_out_scores_are_those_of_heads_made_without_the_text(n, f):
    features, labels = texts(3, n, f, 3)
    ridge = solve(gram_sums(features, labels, 3))
    scores = leave_one_out(
        features,
        labels,
        ridge.center,
        ridge.basis,
        ridge.spectrum,
        ridge.shrinkages,
        ridge.weights,
        ridge.biases,
        ridge.n,
    )
    for place, shrinkage in enumerate(ridge.shrinkages[6:]):  # of almost none the stacked system says little
        for i in range(n):
            others = np.arange(n) != i
            weights, bias = centralised(features[others], labels[others], 3, shrinkage)
            np.testing.assert_allclose(scores[place + 6, i], features[i] @ weights + bias, atol=1e-5)


def test_more_words_than_texts_still_give_finite_heads_that_fit():
    features, labels = texts(1, 8, 200, 2)
    ridge = solve(gram_sums(features, labels, 2))
    assert np.all(np.isfinite(ridge.weights))
    assert (features @ ridge.weights[0] + ridge.biases[0]).argmax(axis=1).tolist() == labels.tolist()


def test_texts_that_are_all_alike_give_the_shares_of_the_classes():
    ridge = solve(gram_sums(np.ones((4, 3)), np.array([0, 0, 0, 1]), 2))
    np.testing.assert_allclose(np.ones(3) @ ridge.weights + ridge.biases, np.tile([0.75, 0.25], (len(LAMBDAS), 1)))


def test_no_texts_at_all_are_refused():
    with pytest.raises(UserError, match="no client has a labelled text"):
        solve(gram_sums(np.zeros((0, 3)), np.zeros(0, dtype=int), 2))


def test_separation_is_between_class_over_within_class_variance():
    features, labels = texts(5, 30, 4, 3)
    for j, found in enumerate(separation(word_statistics(features, labels, 3))):
        x = features[:, j]
        within = sum(np.sum(np.square(x[labels == c] - x[labels == c].mean())) for c in range(3))
        between = sum(np.sum(labels == c) * (x[labels == c].mean() - x.mean()) ** 2 for c in range(3))
        assert found == pytest.approx(between / within)


def test_words_are_chosen_by_separation_for_each_template_with_label_words_always_among_them():
    rng, labels = np.random.default_rng(0), np.arange(40) % 2
    features = rng.normal(size=(40, 6))
    features[:, [1, 4]] += 5 * labels[:, None]
    statistics, groups = word_statistics(features, labels, 2), np.array([0, 0, 0, 1, 1, 1])
    assert choose_words(statistics, groups, 1).tolist() == [1, 4]
    assert choose_words(statistics, groups, 2, always=[0, 5]).tolist() == [0, 1, 4, 5]
    assert choose_words(statistics, groups, 1, always=[0, 2, 5]).tolist() == [0, 2, 5]  # more than asked for
    assert choose_words(statistics, groups, 9).tolist() == [0, 1, 2, 3, 4, 5]


def test_words_that_no_text_makes_vary_are_left_out_label_words_too():
    labels = np.arange(10) % 2
    features = np.stack([np.full(10, -11.3), labels - 9.0, np.full(10, -2.0)], axis=1)
    statistics = word_statistics(features, labels, 2)
    assert choose_words(statistics, np.zeros(3, dtype=int), 3, always=[0]).tolist() == [1]
    alike = word_statistics(features[:, [0, 2]], labels, 2)
    with pytest.raises(UserError, match="no word's log-probability differs"):
        choose_words(alike, np.zeros(2, dtype=int), 2)


def test_losses_are_the_cross_entropy_at_each_temperature():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(2, 5, 3)), np.array([0, 2, 1, 1, 0])
    found = losses(scores, labels)
    for i, tau in enumerate(TEMPERATURES):
        powers = np.exp(scores / tau)
        probabilities = powers / powers.sum(axis=-1, keepdims=True)
        expected = -np.log(probabilities[:, np.arange(5), labels]).sum(axis=1)
        np.testing.assert_allclose(found[:, i], expected, rtol=1e-9)


def test_the_head_of_the_smallest_loss_is_chosen_and_of_equal_ones_the_most_shrunk():
    summed = np.full((4, len(TEMPERATURES)), 900.0)
    summed[0, 3], summed[1, 20], summed[2, 7] = 200.0, 100.0, 100.0
    assert choose_head(summed, 2) == (2, 7)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_few_texts_that_are_all_correct_make_no_sure_temperature(n_classes):
    for n in (3, 30, 3000):
        labels = np.arange(n) % n_classes
        scores = 0.6 * np.eye(n_classes)[labels] + 0.1
        # One text more whose label nothing is known of: the mean over every label that it may have.
        more, any_label = np.eye(n_classes)[[0] * n_classes], np.arange(n_classes)
        expected = [
            cross_entropies(scores / tau, labels).sum() + cross_entropies(more / tau, any_label).mean()
            for tau in TEMPERATURES
        ]
        found = choose_head(losses(scores[None], labels), n_classes)
        assert found == (0, int(np.argmin(expected)))
        surest = np.exp(-cross_entropies(scores / TEMPERATURES[found[1]], labels)).max()
        assert surest < (n + 1) / (n + 1 + (n_classes - 1) / n_classes) + 0.02  # Laplace's rule, up to the grid


def cross_entropies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return -np.log((powers / powers.sum(axis=-1, keepdims=True))[np.arange(len(labels)), labels])
