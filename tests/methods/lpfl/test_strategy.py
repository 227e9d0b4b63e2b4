"""What LP-FL's server refuses of a client's round."""

import math
from dataclasses import replace

import numpy as np
import pytest

from flaretune.methods.exchanged import FitResult
from flaretune.methods.lpfl.config import LPFLServerConfig
from tests.engine.made_up_results import COUNTERS, LPFL, A, B, adapter_arrays, an_initialize_result


@pytest.fixture
def started(tmp_path):
    """Start a job of two classes, with further options of the clients."""

    def start(**options):
        strategy = LPFL.strategy(LPFLServerConfig())
        assert strategy.start({"site-1": an_initialize_result(LPFL, **options)}, None, tmp_path) == {}
        return strategy

    return start


def a_result(**numbers) -> FitResult:
    good = {"labelled": 8, "soft_labelled": 16, "soft_labels_correct": 13, "loss": 0.4375}
    return FitResult(adapter_arrays(), {**good, **numbers}, COUNTERS)


def test_a_result_is_taken_as_it_came(started):
    result = a_result()
    got = started().check(result, "")
    assert (got.numbers, got.counters) == (result.numbers, COUNTERS)
    assert {name: values.dtype for name, values in got.arrays.items()} == {A: np.float32, B: np.float32}
    for name, values in adapter_arrays().items():
        np.testing.assert_array_equal(got.arrays[name], values)


def test_the_correct_soft_labels_of_a_real_pool_are_not_known(started):
    result = a_result()
    del result.numbers["soft_labels_correct"]
    assert "soft_labels_correct" not in started().check(result, "").numbers


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (B, None, "lora_B.weight' is missing"),
        ("other.lora_A.weight", np.zeros((2, 5), np.float32), "array 'other.lora_A.weight' is none of those that"),
        (B, np.zeros((2, 4), np.float32), r"lora_B.weight' has shape \(2, 4\), expected \(4, 2\)"),
        (B, np.zeros(8, np.float32), r"lora_B.weight' has shape \(8,\), expected \(4, 2\)"),
        (A, np.full((2, 5), np.nan, np.float32), "lora_A.weight' holds values that are not finite"),
        (A, np.where(np.arange(10).reshape(2, 5) == 9, np.inf, 0), "lora_A.weight' holds values that are not finite"),
        (A, np.full((2, 5), "x"), "lora_A.weight' has type <U1, expected numbers"),
        (A, np.zeros((2, 5), bool), "lora_A.weight' has type bool, expected numbers"),
    ],
)
def test_arrays_that_are_refused(started, name, value, message):
    result = a_result()
    if value is None:
        del result.arrays[name]
    else:
        result.arrays[name] = value
    with pytest.raises(ValueError, match=message):
        started().check(result, "")


@pytest.mark.parametrize("big", [3.5e38, -1e300])
def test_numbers_that_float32_cannot_hold_are_refused(started, big):
    """They are finite as they arrive, and would not be any more when they are averaged."""
    result = a_result()
    result.arrays[A] = np.full((2, 5), big, dtype=np.float64)
    with pytest.raises(ValueError, match=r"lora_A\.weight' holds values that are not finite in float32"):
        started().check(result, "")


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"labelled": 0, "soft_labelled": 0, "soft_labels_correct": 0}, "it trained on no examples"),
        ({"labelled": -1}, "'labelled' is -1, expected a whole number"),
        ({"labelled": 8.0}, "'labelled' is 8.0, expected a whole number"),
        ({"soft_labelled": None}, "'soft_labelled' is None, expected a whole number"),
        ({"soft_labels_correct": -2}, "'soft_labels_correct' is -2, expected a whole number"),
        ({"soft_labels_correct": 17}, "'soft_labels_correct' is 17 of 16 soft-labelled texts, which cannot be"),
        ({"soft_labelled": 12}, "'soft_labels_correct' is 13 of 12 soft-labelled texts, which cannot be"),
        ({"loss": -1.0}, "'loss' is -1.0, expected a number between 0 and"),
        ({"loss": 1e308}, r"'loss' is 1e\+308, expected a number between 0 and"),
        ({"loss": "small"}, "'loss' is 'small', expected a number"),
        ({"loss": math.nan}, "'loss' is nan, expected a number"),
        ({"loss": math.inf}, "'loss' is inf, expected a number"),
        ({"loss": None}, "'loss' is None, expected a number"),
        ({"text": 1}, "'text' is none of the numbers that are sent"),
    ],
)
def test_numbers_that_are_refused(started, numbers, message):
    with pytest.raises(ValueError, match=message):
        started().check(a_result(**numbers), "")


def test_more_labelled_texts_than_k_for_each_class_are_refused(started):
    strategy = started(k_shot=4)
    assert strategy.check(a_result(), "").numbers["labelled"] == 8
    with pytest.raises(ValueError, match="'labelled' tells of 9 texts, and --k_shot gives a client 8 at the most"):
        strategy.check(replace(a_result(), numbers={**a_result().numbers, "labelled": 9}), "")
