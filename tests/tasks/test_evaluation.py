"""No client chooses the best round alone by what it says of its number of examples."""

import numpy as np
import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from flaretune.aggregation.registry import find_rule
from flaretune.tasks.evaluation import Evaluation, count_correct, limit_evaluations
from flaretune.tasks.metrics.registry import find_metric
from tests.tasks_for_tests import review_task


def evaluation(correct: int, size: int) -> Evaluation:
    return Evaluation(np.array([correct, size]), size * 0.5, size, None)


def test_sizes_within_twice_the_lower_median_stay():
    given = {"a": evaluation(8, 16), "b": evaluation(12, 32), "c": evaluation(0, 0), "d": evaluation(7, 15)}
    assert limit_evaluations(given, find_rule("clipped")) == given


@pytest.mark.parametrize("rule", ["clipped", "median"])
def test_a_client_of_very_many_examples_counts_as_one_of_twice_the_median(rule):
    given = {"a": evaluation(8, 16), "b": evaluation(16, 16), "c": evaluation(10**9, 10**9)}
    held = limit_evaluations(given, find_rule(rule))
    assert held["a"] is given["a"]
    limited = held["c"]
    assert (limited.validation.tolist(), limited.n_validation, limited.validation_loss_sum) == ([32, 32], 32, 16.0)


@given_any(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=14, max_size=14),
    st.integers(1, 40),
)
def test_what_a_client_is_held_to_has_the_metric_that_it_had(counts, few):
    """Small counts, of many classes, would be others if they were rounded."""
    own = np.array(counts).T.ravel()  # true positives, false positives and false negatives of 14 classes
    n = int(own.sum())
    given = {name: Evaluation(own, 1.0, size, None) for name, size in (("a", few), ("b", few), ("c", max(n, 2 * few)))}
    held, metric = limit_evaluations(given, find_rule("clipped"))["c"], find_metric("macro_f1")
    assert held.n_validation == pytest.approx(2 * few)
    assert metric.value(held.validation) == pytest.approx(metric.value(own))


def test_the_mean_limits_no_evaluation():
    given = {"a": evaluation(8, 16), "c": evaluation(10**9, 10**9)}
    assert limit_evaluations(given, find_rule("mean")) == given


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_count_as_no_class(bad):
    logits, labels = np.array([[0.0, 1.0], [2.0, bad], [1.0, 0.0]]), np.array([1, 1, 1])
    assert count_correct(review_task(), logits[::2], labels[::2]).tolist() == [1, 2]
    with pytest.raises(FloatingPointError, match="not finite for 1 of 3 texts"):
        count_correct(review_task(), logits, labels)
