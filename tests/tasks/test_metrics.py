from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaretune.errors import UserError
from flaretune.tasks.metrics import check_possible, count, value

PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30)


def f1_by_hand(pairs: list[tuple[int, int]], positive: int) -> float:
    """F1 as the harmonic mean of precision and recall."""
    hits = sum(said == positive and is_so == positive for said, is_so in pairs)
    if hits == 0:
        return 0.0
    precision = hits / sum(said == positive for said, _ in pairs)
    recall = hits / sum(is_so == positive for _, is_so in pairs)
    return 2 * precision * recall / (precision + recall)


def counts_of(metric: str, pairs: list[tuple[int, int]], positive: int | None) -> np.ndarray:
    said, is_so = np.array(pairs).T
    return count(metric, said, is_so, positive)


def test_accuracy_counts():
    counts = count("accuracy", np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]))
    assert counts.dtype == np.int64
    assert counts.tolist() == [3, 4]
    assert value("accuracy", counts) == 0.75


def test_f1_counts():
    counts = count("f1", np.array([1, 1, 1, 1, 0, 0]), np.array([1, 1, 0, 0, 1, 0]), positive_class=1)
    assert counts.dtype == np.int64
    assert counts.tolist() == [2, 2, 1]
    assert value("f1", counts) == pytest.approx(4 / 7)


@settings(deadline=None)
@given(PAIRS, st.integers(0, 2))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(pairs, positive):
    assert value("f1", counts_of("f1", pairs, positive)) == pytest.approx(f1_by_hand(pairs, positive))


@settings(deadline=None)
@given(PAIRS, PAIRS, st.sampled_from(["accuracy", "f1"]))
def test_counts_of_two_sites_add_up(here, there, metric):
    together = counts_of(metric, here + there, 1)
    assert (counts_of(metric, here, 1) + counts_of(metric, there, 1)).tolist() == together.tolist()


def test_f1_of_a_class_that_never_occurs_is_zero():
    assert value("f1", count("f1", np.array([0, 0]), np.array([0, 0]), 1)) == 0.0


def test_no_examples_have_no_accuracy_but_can_be_counted():
    nothing = count("accuracy", np.array([], dtype=np.int64), np.array([], dtype=np.int64))
    with pytest.raises(UserError, match="0 examples"):
        value("accuracy", nothing)


def test_bad_arguments():
    labels = np.array([0, 1])
    with pytest.raises(UserError, match="'f2'"):
        count("f2", labels, labels)
    with pytest.raises(UserError, match="positive class"):
        count("f1", labels, labels)
    with pytest.raises(ValueError, match=r"\(2,\)"):
        count("accuracy", labels, np.array([0]))


@pytest.mark.parametrize(
    ("counts", "n_examples"),
    [([3, 5], 5), ([0, 0], 0), ([3, 5], None), ([2, 1, 1], 9), ([0, 0, 0], 4), ([9, 9, 9], None)],
)
def test_counts_that_can_be(counts, n_examples):
    check_possible(np.array(counts), n_examples)


@pytest.mark.parametrize(
    ("counts", "n_examples", "message"),
    [
        ([6, 5], 5, "6 right answers of 5 cannot be"),
        ([6, 5], None, "6 right answers of 5 cannot be"),
        ([3, 10], 5, r"counts \[3, 10\] of 5 examples cannot be"),
        ([3, 4], 5, r"counts \[3, 4\] of 5 examples cannot be"),
        ([3, 2, 1], 5, r"counts \[3, 2, 1\] of 5 examples cannot be"),
    ],
)
def test_counts_that_cannot_be(counts, n_examples, message):
    with pytest.raises(ValueError, match=message):
        check_possible(np.array(counts), n_examples)
