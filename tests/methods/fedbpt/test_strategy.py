"""What FedBPT's server refuses of a client's round."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from flaretune.methods.exchanged import FitResult
from flaretune.methods.fedbpt.config import FedBPTServerConfig
from tests.engine.made_up_results import COUNTERS, FEDBPT, an_initialize_result


@pytest.fixture
def started(tmp_path):
    """Start a job of two classes, k = 16 and five numbers, with further options of the clients."""

    def start(**options):
        strategy = FEDBPT.strategy(FedBPTServerConfig())
        result = an_initialize_result(FEDBPT, intrinsic_dim=5, **options)
        assert strategy.start({"site-1": result}, None, tmp_path) == {}
        return strategy

    return start


def a_result(**arrays) -> FitResult:
    """8 generations of 5 candidates and their mean, on 32 texts."""
    good = {"mean": np.zeros(5, np.float32), "fitness": np.array([0.5]), "sigma_square_sum": np.array([8.0])}
    return FitResult({**good, **arrays}, {"n_train": 32}, COUNTERS)


def test_a_result_is_taken_as_float64(started):
    arrays = started().check(a_result(mean=np.full(5, 0.25, np.float32)), "").arrays
    assert {name: values.dtype for name, values in arrays.items()} == dict.fromkeys(arrays, np.float64)
    assert (arrays["mean"].tolist(), arrays["fitness"].tolist()) == ([0.25] * 5, [0.5])
    assert arrays["sigma_square_sum"].tolist() == [8.0]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mean", np.zeros(4), r"'mean' has shape \(4,\), expected \(5,\)"),
        ("mean", np.full(5, np.nan), "'mean' holds values that are not finite"),
        ("mean", np.array(list("abcde")), "type <U1, expected numbers"),
        ("mean", None, "'mean' is missing"),
        ("other", np.zeros(5), "array 'other' is none of those that are sent"),
        ("fitness", np.array([np.inf]), "'fitness' holds values that are not finite"),
        ("fitness", np.array([1e308]), r"'fitness' is 1e\+308, which the loss cannot be"),
        ("sigma_square_sum", np.array([1e308]), r"'sigma_square_sum' is 1e\+308, expected a positive number"),
        ("fitness", np.zeros(2), r"'fitness' has shape \(2,\), expected \(1,\)"),
        ("sigma_square_sum", np.array([-1.0]), "'sigma_square_sum' is -1, expected a positive number"),
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


def test_the_number_of_queries_follows_from_the_settings(started):
    assert started().check(a_result(), "").counters == COUNTERS
    with pytest.raises(ValueError, match="'example_forwards' is 1312, and 2624 follows from the settings"):
        started(perturb=1).check(a_result(), "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": 2**50}, "'queries' is 1125899906842624, and 41 follows from the settings"),
        ({"example_forwards": 1311}, "'example_forwards' is 1311, and 1312 follows from the settings"),
    ],
)
def test_other_numbers_of_queries_are_refused(started, changes, message):
    with pytest.raises(ValueError, match=message):
        started().check(replace(a_result(), counters=replace(COUNTERS, **changes)), "")


@pytest.mark.parametrize(
    ("n_train", "message"),
    [
        (33, "'n_train' tells of 33 texts, and --k_shot gives a client 32 at the most"),
        ("many", "'n_train' is 'many', expected a whole number"),
        (None, "'n_train' is None, expected a whole number"),
    ],
)
def test_numbers_of_texts_that_cannot_be_are_refused(started, n_train, message):
    with pytest.raises(ValueError, match=message):
        started().check(replace(a_result(), numbers={"n_train": n_train}), "")


@pytest.mark.parametrize(("farthest", "refused"), [(0.1, False), (0.1001, True), (-0.1001, True)])
def test_a_mean_beyond_the_bound_is_refused(started, farthest, refused):
    """And one on it is not, though float32, in which it travels, has no 0.1."""
    result = a_result(mean=np.full(5, farthest, dtype=np.float32))
    with pytest.raises(ValueError, match=r"beyond --bound 0\.1") if refused else nullcontext():
        started(bound=0.1).check(result, "")
