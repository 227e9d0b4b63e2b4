"""What both methods say, through NVFlare's own serialiser, and what is refused on receipt."""

import math

import numpy as np
import pytest

from flaretune.flare import messages
from flaretune.tasks.evaluation import EvaluateAnswer, Evaluation, SetupAnswer
from tests.flare.sending import COUNTERS, EVALUATION, TASK, through_nvflare

pytestmark = pytest.mark.usefixtures("as_in_a_job")

SITES = ["hospital-a", "hospital-b"]


def a_setup_answer():
    return messages.setup_answer(
        SetupAnswer({"options": {}, "task": TASK}, 64, np.array([51, 100]), EVALUATION, COUNTERS)
    )


def an_evaluate_answer():
    return messages.evaluate_answer(EvaluateAnswer(EVALUATION, COUNTERS))


def test_setup_both_ways():
    assert messages.read_sites(through_nvflare(messages.setup_task(SITES))) == SITES
    settings = {"options": {"intrinsic_dim": 500, "sigma": 1.0}, "task": {**TASK, "label_words": ["bad", "great"]}}
    sent = SetupAnswer(settings, 64, np.array([51, 100]), EVALUATION, COUNTERS, dtype="bfloat16")
    got = messages.read_setup_answer(through_nvflare(messages.setup_answer(sent)))
    assert got.dtype == "bfloat16"
    assert (got.settings, got.n_train, got.counters) == (settings, 64, COUNTERS)
    assert got.zero_shot.tolist() == [51, 100]
    assert (got.evaluation.validation.tolist(), got.evaluation.test.tolist()) == ([20, 32], [71, 100])
    assert (got.evaluation.validation_loss_sum, got.evaluation.n_validation) == (17.5, 32)


def test_site_without_test_data_says_nothing_of_it():
    evaluation = Evaluation(np.array([20, 32]), 17.5, 32, None)
    got = messages.read_setup_answer(
        through_nvflare(messages.setup_answer(SetupAnswer({"task": TASK}, 8, None, evaluation, COUNTERS)))
    )
    assert got.zero_shot is None
    assert got.evaluation.test is None
    assert got.dtype is None


def test_evaluation_comes_back():
    back = messages.read_evaluate_answer(through_nvflare(an_evaluate_answer()), TASK)
    assert back.counters == COUNTERS
    assert back.evaluation.validation.tolist() == [20, 32]
    assert (back.evaluation.validation_loss_sum, back.evaluation.n_validation) == (17.5, 32)
    assert back.evaluation.test.tolist() == [71, 100]
    assert back.evaluation.validation.dtype == back.evaluation.test.dtype == np.int64


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema", 1, "message schema 1, expected 3: update the older side"),
        ("schema", None, "message schema None, expected 3: update the older side"),
        ("queries", -1, "'queries' is -1, expected a whole number"),
        ("queries", True, "'queries' is True, expected a whole number"),
        ("example_forwards", 2.5, "'example_forwards' is 2.5, expected a whole number"),
        ("seconds", math.nan, "'seconds' is nan, expected a number"),
        ("seconds", "3", "'seconds' is '3', expected a number"),
        ("memory_mb", math.inf, "'memory_mb' is inf, expected a number"),
        ("memory_mb", None, "'memory_mb' is None, expected a number"),
        ("memory_mb", -1, "'memory_mb' is -1, expected a number between 0 and"),
        ("memory_mb", 1e9, "'memory_mb' is 1000000000.0, expected a number between 0 and"),
        ("seconds", -0.5, "'seconds' is -0.5, expected a number between 0 and"),
        ("releases", -3, "'releases' is -3, expected a whole number"),
    ],
)
def test_fields_that_are_refused(field, value, message):
    model = an_evaluate_answer()
    model.meta["flaretune"][field] = value
    with pytest.raises(ValueError, match=message):
        messages.read_evaluate_answer(through_nvflare(model), TASK)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("settings", None, "'settings' is missing"),
        ("settings", ["sst2"], "'settings' is missing"),
        ("n_train", "many", "'n_train' is 'many', expected a whole number"),
        ("n_train", -1, "'n_train' is -1, expected a whole number"),
        ("dtype", "float16", "'dtype' is 'float16', expected one of bfloat16, float32"),
        ("dtype", 32, "'dtype' is 32, expected one of bfloat16, float32"),
    ],
)
def test_setup_answers_that_are_refused(field, value, message):
    model = a_setup_answer()
    model.meta["flaretune"][field] = value
    with pytest.raises(ValueError, match=message):
        messages.read_setup_answer(through_nvflare(model))


def test_a_message_of_something_else_is_refused():
    model = an_evaluate_answer()
    model.meta = {}
    with pytest.raises(ValueError, match="no 'flaretune' field"):
        messages.read_evaluate_answer(through_nvflare(model), TASK)


@pytest.mark.parametrize("counts", [np.array([-1, 5]), np.array([0.5, 5.0]), np.array([5]), np.zeros(3, int)])
@pytest.mark.parametrize("name", ["dev", "test"])
def test_counts_that_are_none_are_refused(name, counts):
    model = an_evaluate_answer()
    model.params[name] = counts
    with pytest.raises(ValueError, match=f"'{name}' is not a vector of 2 counts"):
        messages.read_evaluate_answer(through_nvflare(model), TASK)


@pytest.mark.parametrize("name", ["dev", "dev_loss"])
@pytest.mark.parametrize("read", [messages.read_setup_answer, lambda model: messages.read_evaluate_answer(model, TASK)])
def test_an_evaluation_must_be_whole(name, read):
    model = a_setup_answer()
    del model.params["zero_shot"], model.params["test"], model.params[name]
    with pytest.raises(ValueError, match=f"'{name}' is"):
        read(through_nvflare(model))


def test_more_correct_predictions_of_the_model_alone_than_examples_cannot_be():
    model = a_setup_answer()
    model.params["zero_shot"] = np.array([101, 100])
    with pytest.raises(ValueError, match="101 correct predictions of 100 cannot be"):
        messages.read_setup_answer(through_nvflare(model))


def test_counts_of_the_model_alone_must_be_those_of_the_metric():
    model = a_setup_answer()
    model.params["zero_shot"] = np.array([1, 2, 3])
    with pytest.raises(ValueError, match="'zero_shot' is not a vector of 2 counts"):
        messages.read_setup_answer(through_nvflare(model))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([np.nan, 32.0]), "'dev_loss' holds values that are not finite"),
        (np.array([1e308, 32.0]), r"'dev_loss' is \[1e\+308, 32\], expected numbers of at least 0, and none so large"),
        (np.array([17.5]), r"'dev_loss' has shape \(1,\), expected \(2,\)"),
        (np.array(["a", "b"]), "'dev_loss' has type <U1, expected numbers"),
    ],
)
def test_a_loss_that_is_none_is_refused(values, message):
    model = an_evaluate_answer()
    model.params["dev_loss"] = values
    with pytest.raises(ValueError, match=message):
        messages.read_evaluate_answer(through_nvflare(model), TASK)
