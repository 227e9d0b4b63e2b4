"""What is refused of a message on receipt."""

import math
from dataclasses import replace

import numpy as np
import pytest

from flaretune.engine import codec
from flaretune.methods.exchanged import CalibrateResult, EvaluateResult, FitRequest, FitResult
from flaretune.tasks.calibration import LogProbSums
from tests.engine.made_up_results import (
    COMMON,
    COUNTERS,
    EVALUATION,
    FEDBPT,
    LPFL,
    A,
    B,
    adapter_arrays,
    an_initialize_result,
    settings_of,
)

TASK = settings_of(FEDBPT)["task"]
FOUND = {"mean": np.zeros(5, np.float32), "fitness": np.array([0.5]), "sigma_square_sum": np.array([8.0])}
REQUEST = FitRequest(1, adapter_arrays(), {}, evaluate=True)

# By name: makes a good message, and its reader.
REPLIES = {
    "initialize": (
        lambda: codec.initialize_reply(an_initialize_result()),
        lambda received: codec.read_initialize_reply(received, FEDBPT),
    ),
    "initialize of LP-FL": (
        lambda: codec.initialize_reply(an_initialize_result(LPFL)),
        lambda received: codec.read_initialize_reply(received, LPFL),
    ),
    "fit": (
        lambda: codec.fit_reply(FitResult(dict(FOUND), {"n_train": 32}, COUNTERS, EVALUATION)),
        lambda received: codec.read_fit_reply(received, TASK),
    ),
    "evaluate": (
        lambda: codec.evaluate_reply(EvaluateResult(EVALUATION, COUNTERS)),
        lambda received: codec.read_evaluate_reply(received, TASK),
    ),
}
WITHOUT_EVALUATION = {
    "clients": (lambda: codec.initialize_message(COMMON, 3), codec.read_clients),
    "run": (lambda: codec.initialize_message(COMMON, 3), codec.read_run),
    "prior": (lambda: codec.initialize_message(COMMON, 3), codec.read_prior),
    "rounds": (lambda: codec.initialize_message(COMMON, 3), codec.read_num_rounds),
    "fit task": (lambda: codec.fit_message(COMMON, REQUEST), codec.read_fit_request),
    "calibrate reply": (
        lambda: codec.calibrate_reply(CalibrateResult(LogProbSums(np.array([-6.0, -9.0]), 8), COUNTERS)),
        lambda received: codec.read_calibrate_reply(received, TASK),
    ),
    "evaluate task": (lambda: codec.evaluate_message(COMMON, 1, adapter_arrays()), codec.read_evaluate_request),
}


@pytest.mark.parametrize("schema", [1, None, True, "4"])
@pytest.mark.parametrize("name", [*REPLIES, *WITHOUT_EVALUATION])
def test_a_message_of_another_version_is_refused(name, schema):
    make, read = {**REPLIES, **WITHOUT_EVALUATION}[name]
    received = make()
    read(received)
    received.fields["schema"] = schema
    with pytest.raises(ValueError, match=rf"message schema {schema!r}, expected 4: update the older side"):
        read(received)


@pytest.mark.parametrize("name", [*REPLIES, *WITHOUT_EVALUATION])
def test_a_message_of_something_else_is_refused(name):
    make, read = {**REPLIES, **WITHOUT_EVALUATION}[name]
    received = make()
    received.fields = None
    with pytest.raises(ValueError, match="no 'flaretune' field"):
        read(received)


@pytest.mark.parametrize("name", REPLIES)
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("queries", -1, "'queries' is -1, expected a whole number of at least 0"),
        ("queries", True, "'queries' is True, expected a whole number"),
        ("queries", "many", "'queries' is 'many', expected a whole number"),
        ("example_forwards", 2.5, "'example_forwards' is 2.5, expected a whole number"),
        ("seconds", math.nan, "'seconds' is nan, expected a number"),
        ("seconds", "3", "'seconds' is '3', expected a number"),
        ("seconds", -0.5, "'seconds' is -0.5, expected a number between 0 and"),
        ("memory_mb", math.inf, "'memory_mb' is inf, expected a number"),
        ("memory_mb", None, "'memory_mb' is None, expected a number"),
        ("memory_mb", -1, "'memory_mb' is -1, expected a number between 0 and"),
        ("memory_mb", 1e9, "'memory_mb' is 1000000000.0, expected a number between 0 and"),
        ("releases", -3, "'releases' is -3, expected a whole number"),
    ],
)
def test_counters_that_cannot_be_are_refused(name, field, value, message):
    make, read = REPLIES[name]
    received = make()
    received.fields[field] = value
    with pytest.raises(ValueError, match=message):
        read(received)


@pytest.mark.parametrize("name", [name for name in REPLIES if name.startswith("initialize")])
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("settings", None, "'settings' is missing"),
        ("settings", ["sst2"], "'settings' is missing"),
        ("n_train", "many", "'n_train' is 'many', expected a whole number"),
        ("n_train", -1, "'n_train' is -1, expected a whole number"),
        ("n_train", 33, "'n_train' tells of 33 texts, and --k_shot gives a client 32 at the most"),
        ("dtype", "float16", "'dtype' is 'float16', expected one of bfloat16, float32"),
        ("dtype", 32, "'dtype' is 32, expected one of bfloat16, float32"),
    ],
)
def test_what_a_client_cannot_be_initialized_with_is_refused(name, field, value, message):
    make, read = REPLIES[name]
    received = make()
    received.fields[field] = value
    with pytest.raises(ValueError, match=message):
        read(received)


def test_a_client_of_another_method_is_refused():
    with pytest.raises(ValueError, match="it is a client of 'FedBPT', and the job is one of LP-FL"):
        codec.read_initialize_reply(codec.initialize_reply(an_initialize_result()), LPFL)


# ---- evaluations ----


@pytest.mark.parametrize("counts", [np.array([-1, 5]), np.array([0.5, 5.0]), np.array([5]), np.zeros(3, int)], ids=str)
@pytest.mark.parametrize("array", ["validation", "test"])
@pytest.mark.parametrize("name", REPLIES)
def test_counts_that_are_none_are_refused(name, array, counts):
    make, read = REPLIES[name]
    received = make()
    received.arrays[array] = counts
    with pytest.raises(ValueError, match=f"'{array}' is not a vector of 2 counts"):
        read(received)


@pytest.mark.parametrize("array", ["validation", "validation_loss"])
@pytest.mark.parametrize("name", REPLIES)
def test_an_evaluation_must_be_whole(name, array):
    make, read = REPLIES[name]
    received = make()
    del received.arrays["test"], received.arrays[array]
    with pytest.raises(ValueError, match=f"'{array}' is"):
        read(received)


def test_an_evaluation_that_was_asked_for_must_be_there():
    received = codec.fit_reply(FitResult(dict(FOUND), {"n_train": 32}, COUNTERS))
    assert codec.read_fit_reply(received, None).evaluation is None
    with pytest.raises(ValueError, match="'validation_loss' is missing"):
        codec.read_fit_reply(received, TASK)


def test_more_correct_predictions_of_the_model_alone_than_examples_cannot_be():
    received = codec.initialize_reply(replace(an_initialize_result(), zero_shot=np.array([101, 100])))
    with pytest.raises(ValueError, match="101 correct predictions of 100 cannot be"):
        codec.read_initialize_reply(received, FEDBPT)


def test_counts_of_the_model_alone_must_be_those_of_the_metric():
    received = codec.initialize_reply(replace(an_initialize_result(), zero_shot=np.array([1, 2, 3])))
    with pytest.raises(ValueError, match="'zero_shot' is not a vector of 2 counts"):
        codec.read_initialize_reply(received, FEDBPT)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([np.nan, 32.0]), "'validation_loss' holds values that are not finite"),
        (
            np.array([1e308, 32.0]),
            r"'validation_loss' is \[1e\+308, 32\], expected numbers of at least 0, and none so large",
        ),
        (np.array([17.5]), r"'validation_loss' has shape \(1,\), expected \(2,\)"),
        (np.array(["a", "b"]), "'validation_loss' has type <U1, expected numbers"),
    ],
)
@pytest.mark.parametrize("name", REPLIES)
def test_a_loss_that_is_none_is_refused(name, values, message):
    make, read = REPLIES[name]
    received = make()
    received.arrays["validation_loss"] = values
    with pytest.raises(ValueError, match=message):
        read(received)


# ---- arrays and numbers of a method ----


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
def test_initial_arrays_that_are_refused(name, value, message):
    received = codec.initialize_reply(an_initialize_result(LPFL))
    if value is None:
        del received.arrays[name]
    else:
        received.arrays[name] = value
    with pytest.raises(ValueError, match=message):
        codec.read_initialize_reply(received, LPFL)


@pytest.mark.parametrize("shapes", [{A: [2, 5]}, {A: [2, 5], B: [4, 3]}])
def test_a_client_must_name_the_arrays_that_it_brings(shapes):
    sent = an_initialize_result(LPFL)
    settings = {**sent.settings, "initial": shapes, "parameters": shapes}
    with pytest.raises(ValueError, match=r"lora_[AB]\.weight' (is none of those that|has shape)"):
        codec.read_initialize_reply(codec.initialize_reply(replace(sent, settings=settings)), LPFL)


@pytest.mark.parametrize("value", ["small", math.nan, math.inf, None, True])
def test_numbers_of_a_fit_reply_that_are_none_are_refused(value):
    received = codec.fit_reply(FitResult(adapter_arrays(), {"loss": value}, COUNTERS))
    with pytest.raises(ValueError, match=f"'loss' is {value!r}, expected a number"):
        codec.read_fit_reply(received, None)


@pytest.mark.parametrize("numbers", [None, [1.0], {1: 1.0}])
def test_numbers_of_a_fit_reply_have_names(numbers):
    received = codec.fit_reply(FitResult(adapter_arrays(), {}, COUNTERS))
    received.fields["numbers"] = numbers
    with pytest.raises(ValueError, match=r"'numbers' is .*, expected numbers by name"):
        codec.read_fit_reply(received, None)


@pytest.mark.parametrize("run", ["../x", "a/b", "..", ".", "A", "0f\n", "0" * 65, "/etc", "~", None, 5])
def test_a_run_s_name_is_no_path(run):
    received = codec.initialize_message({**COMMON, "run": run, "after_round": 1}, 3)
    with pytest.raises(ValueError, match="the run's name"):
        codec.read_run(received)
