"""Each metric against a definition of its own, and what holds for all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaretune.errors import UserError
from flaretune.tasks.metrics.registry import METRICS, find_metric, value_text

N_CLASSES = 3
PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30)


def f1_by_hand(pairs: list[tuple[int, int]], positive: int) -> float | None:
    """F1 as the harmonic mean of precision and recall."""
    hits = sum(said == positive and is_so == positive for said, is_so in pairs)
    n_said, n_so = sum(said == positive for said, _ in pairs), sum(is_so == positive for _, is_so in pairs)
    if n_said == n_so == 0:
        return None
    if hits == 0:
        return 0.0
    precision, recall = hits / n_said, hits / n_so
    return 2 * precision * recall / (precision + recall)


def counts_of(metric: str, pairs: list[tuple[int, int]], positive: int | None = 1) -> np.ndarray:
    said, is_so = np.array(pairs).T
    return find_metric(metric).count(said, is_so, positive, N_CLASSES)


def value(metric: str, counts: np.ndarray) -> float | None:
    return find_metric(metric).value(counts)


def test_accuracy_counts():
    counts = find_metric("accuracy").count(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), None, 3)
    assert counts.tolist() == [3, 4]
    assert value("accuracy", counts) == 0.75


def test_f1_counts():
    counts = find_metric("f1").count(np.array([1, 1, 1, 1, 0, 0]), np.array([1, 1, 0, 0, 1, 0]), 1, 2)
    assert counts.tolist() == [2, 2, 1]
    assert value("f1", counts) == pytest.approx(4 / 7)


def test_macro_f1_counts():
    """The example in scikit-learn's documentation of f1_score, where the macro average is 0.26…: F1 0.8, 0 and 0."""
    labels, predictions = np.array([0, 1, 2, 0, 1, 2]), np.array([0, 2, 1, 0, 0, 1])
    counts = find_metric("macro_f1").count(predictions, labels, None, 3)
    assert counts.tolist() == [2, 0, 0, 1, 2, 1, 0, 2, 2]
    assert value("macro_f1", counts) == pytest.approx(0.8 / 3)


def test_macro_f1_leaves_out_classes_that_neither_occur_nor_are_predicted():
    labels, predictions = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
    by_two = find_metric("macro_f1").count(predictions, labels, None, 2)
    by_four = find_metric("macro_f1").count(predictions, labels, None, 4)
    assert value("macro_f1", by_two) == value("macro_f1", by_four) == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_macro_f1_sees_what_accuracy_does_not():
    labels = np.array([0] * 95 + [1] * 5)
    always = np.zeros(100, dtype=int)
    found = {name: value(name, find_metric(name).count(always, labels, None, 2)) for name in ("accuracy", "macro_f1")}
    assert found == {"accuracy": 0.95, "macro_f1": pytest.approx(190 / 195 / 2)}


@settings(deadline=None)
@given(PAIRS, st.integers(0, 2))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(pairs, positive):
    by_hand = f1_by_hand(pairs, positive)
    assert value("f1", counts_of("f1", pairs, positive)) == (None if by_hand is None else pytest.approx(by_hand))


@settings(deadline=None)
@given(PAIRS)
def test_macro_f1_is_the_mean_over_the_classes_of_labels_and_predictions(pairs):
    occurring = {class_id for pair in pairs for class_id in pair}
    by_hand = sum(f1_by_hand(pairs, class_id) for class_id in occurring) / len(occurring)
    assert value("macro_f1", counts_of("macro_f1", pairs)) == pytest.approx(by_hand)


@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None)
@given(here=PAIRS, there=PAIRS)
def test_counts_of_two_clients_add_up(metric, here, there):
    together = counts_of(metric, here + there)
    assert together.dtype == np.int64
    assert together.shape == (find_metric(metric).n_counts(N_CLASSES),)
    assert (counts_of(metric, here) + counts_of(metric, there)).tolist() == together.tolist()
    find_metric(metric).check_possible(together)
    find_metric(metric).check_possible(together, len(here) + len(there))
    found = value(metric, together)
    assert found is None or 0 <= found <= 1


@pytest.mark.parametrize("metric", METRICS)
def test_no_examples_can_be_counted_but_have_no_value(metric):
    nothing = np.array([], dtype=np.int64)
    counts = find_metric(metric).count(nothing, nothing, 1, N_CLASSES)
    assert counts.tolist() == [0] * find_metric(metric).n_counts(N_CLASSES)
    find_metric(metric).check_possible(counts, 0)
    assert value(metric, counts) is None


@pytest.mark.parametrize("metric", METRICS)
def test_correct_predictions_alone_are_worth_one(metric):
    assert value(metric, counts_of(metric, [(0, 0), (1, 1), (1, 1)])) == 1.0


def test_f1_of_a_class_that_neither_occurs_nor_is_predicted_has_no_value():
    assert value("f1", counts_of("f1", [(0, 0), (0, 2)])) is None
    assert value("f1", counts_of("f1", [(0, 1), (1, 0)])) == 0.0


def test_bad_arguments():
    labels = np.array([0, 1])
    with pytest.raises(UserError, match="'f2' is unknown; it must be one of accuracy, f1, macro_f1"):
        find_metric("f2")
    with pytest.raises(UserError, match="positive class"):
        find_metric("f1").count(labels, labels, None, 2)
    for metric in METRICS:
        with pytest.raises(ValueError, match=r"\(2,\)"):
            find_metric(metric).count(labels, np.array([0]), 1, 2)
    with pytest.raises(ValueError, match="must be 0 to 1"):
        find_metric("macro_f1").count(np.array([0, 2]), labels, None, 2)


def test_people_read_a_metric_s_title():
    assert [metric.title for metric in METRICS.values()] == ["accuracy", "F1", "macro-F1"]
    assert value_text("f1", 2 / 3) == "F1 0.6667"
    assert value_text("accuracy", None) == "accuracy -"


@pytest.mark.parametrize(
    ("metric", "counts", "n_examples"),
    [
        ("accuracy", [3, 5], 5),
        ("accuracy", [0, 0], 0),
        ("accuracy", [3, 5], None),
        ("f1", [2, 1, 1], 9),
        ("f1", [0, 0, 0], 4),
        ("f1", [9, 9, 9], None),
        ("macro_f1", [3, 1, 0, 2, 2, 0], 6),
        ("macro_f1", [3, 1, 0, 2, 2, 0], None),
        ("macro_f1", [0, 0, 0, 0, 0, 0], 0),
    ],
)
def test_counts_that_can_be(metric, counts, n_examples):
    find_metric(metric).check_possible(np.array(counts), n_examples)


@pytest.mark.parametrize(
    ("metric", "counts", "n_examples", "message"),
    [
        ("accuracy", [6, 5], 5, "6 correct predictions of 5 cannot be"),
        ("accuracy", [6, 5], None, "6 correct predictions of 5 cannot be"),
        ("accuracy", [3, 10], 5, r"counts \[3, 10\] of 5 examples cannot be"),
        ("accuracy", [3, 4], 5, r"counts \[3, 4\] of 5 examples cannot be"),
        ("f1", [3, 2, 1], 5, r"counts \[3, 2, 1\] of 5 examples cannot be"),
        ("macro_f1", [3, 1, 0, 2, 2, 0], 5, r"of 5 examples cannot be"),
        ("macro_f1", [3, 1, 0, 2, 2, 0], 7, r"of 7 examples cannot be"),
        ("macro_f1", [3, 1, 0, 2, 1, 0], None, r"counts \[3, 1, 0, 2, 1, 0\] cannot be"),
        ("macro_f1", [3, 1, 2, 0, 2, 0], None, r"counts .* cannot be"),  # each wrong prediction is of another class
        ("macro_f1", [0, 0, 2**53, 2**53, 1, 0], None, r"counts .* cannot be"),
    ],
)
def test_counts_that_cannot_be(metric, counts, n_examples, message):
    with pytest.raises(ValueError, match=message):
        find_metric(metric).check_possible(np.array(counts), n_examples)


# ---- standard errors ----


def redrawn(metric: str, pairs: np.ndarray, n_classes: int) -> float:
    """The standard deviation of a metric over samples of the same size, drawn from the examples with replacement."""
    rng, found = np.random.default_rng(7), find_metric(metric)
    rows = rng.integers(len(pairs), size=(2000, len(pairs)))
    return float(np.std([found.value(found.count(*pairs[drawn].T, 1, n_classes)) for drawn in rows]))


def some_pairs(n_classes: int) -> np.ndarray:
    """400 predictions and labels, about three in four correct, some classes rarer than others."""
    rng = np.random.default_rng(3)
    labels = rng.choice(n_classes, size=400, p=np.arange(1, n_classes + 1) / sum(range(n_classes + 1)))
    predictions = np.where(rng.random(400) < 0.7, labels, rng.integers(n_classes, size=400))
    return np.stack([predictions, labels], axis=1)


@pytest.mark.parametrize(("metric", "most"), [("accuracy", 1.06), ("f1", 1.06), ("macro_f1", 1.06 * 2**0.5)])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_standard_errors_are_those_of_samples_drawn_anew(metric, most, n_classes):
    """Macro-F1's is up to √2 too large: which classes were confused is not among its counts."""
    pairs = some_pairs(n_classes)
    found = find_metric(metric).estimate(counts_of_all(metric, pairs, n_classes))
    assert 0.94 < found.standard_error / redrawn(metric, pairs, n_classes) < most


def counts_of_all(metric: str, pairs: np.ndarray, n_classes: int) -> np.ndarray:
    return find_metric(metric).count(*pairs.T, 1, n_classes)


@pytest.mark.parametrize("metric", METRICS)
def test_twelve_of_twelve_leave_a_doubt_and_no_examples_have_no_error(metric):
    twelve = find_metric(metric).count(np.ones(12, dtype=int), np.ones(12, dtype=int), 1, 2)
    value, error = find_metric(metric).estimate(twelve)
    assert value == 1
    assert 0.02 < error < 0.1
    assert find_metric(metric).estimate(np.zeros_like(twelve)) == (None, None)


def test_the_standard_error_of_an_accuracy():
    """√(p (1 − p) / n) of 359 in 400 is 0.0152."""
    assert find_metric("accuracy").standard_error(np.array([359, 400])) == pytest.approx(0.0152, abs=1e-4)
