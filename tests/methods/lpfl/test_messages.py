"""LP-FL's messages through NVFlare's own serialiser, and what is refused on receipt; see test_messages.py too."""

import math
from dataclasses import replace

import numpy as np
import pytest
from flaretune.methods.lpfl.answers import LPFLSetupAnswer, TrainAnswer

from flaretune.engine import codec
from flaretune.tasks.evaluation import SetupAnswer
from tests.flare.sending import COUNTERS, EVALUATION, TASK, serialised, through_nvflare

pytestmark = pytest.mark.usefixtures("as_in_a_job")

CLIENTS = ["hospital-a", "hospital-b"]
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
SHAPES = {A: (2, 5), B: (4, 2)}
SETTINGS = {
    "options": {"lora_rank": 2},
    "initial": {name: list(shape) for name, shape in SHAPES.items()},
    "task": TASK,
}


def arrays() -> dict[str, np.ndarray]:
    """No two numbers are the same, and none is short in binary."""
    a = np.linspace(-1, 1, 10, dtype=np.float32).reshape(2, 5) / 3
    return {A: a, B: np.geomspace(1e-6, 0.7, 8, dtype=np.float32).reshape(4, 2)}


def assert_same(got: dict[str, np.ndarray], sent: dict[str, np.ndarray]) -> None:
    assert list(got) == list(sent)
    for name, values in sent.items():
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], values)


def a_train_answer(**changes) -> TrainAnswer:
    answer = TrainAnswer(
        arrays=arrays(),
        labelled=8,
        soft_labelled=16,
        soft_labels_correct=13,
        loss=0.4375,
        counters=COUNTERS,
        evaluation=None,
    )
    return replace(answer, **changes)


def a_setup_answer(settings=SETTINGS) -> LPFLSetupAnswer:
    return LPFLSetupAnswer(SetupAnswer(settings, 8, np.array([51, 100]), EVALUATION, COUNTERS), arrays())


def test_setup_both_ways():
    assert messages.read_clients(through_nvflare(messages.setup_task(CLIENTS))) == CLIENTS
    got = lpfl_messages.read_lpfl_setup_answer(through_nvflare(lpfl_messages.lpfl_setup_answer(a_setup_answer())))
    assert (got.setup.settings, got.setup.n_train, got.setup.counters) == (SETTINGS, 8, COUNTERS)
    assert got.setup.zero_shot.tolist() == [51, 100]
    assert (got.setup.evaluation.validation.tolist(), got.setup.evaluation.test.tolist()) == ([20, 32], [71, 100])
    assert_same(got.initial, arrays())


def test_a_client_that_trains_every_parameter_has_no_initial_adapter():
    sent = replace(a_setup_answer({**SETTINGS, "options": {}, "initial": {}}), initial={})
    got = lpfl_messages.read_lpfl_setup_answer(through_nvflare(lpfl_messages.lpfl_setup_answer(sent)))
    assert got.initial == {}
    assert got.setup.evaluation.validation.tolist() == [20, 32]


@pytest.mark.parametrize("evaluation", [EVALUATION, replace(EVALUATION, test=None), None])
@pytest.mark.parametrize("right", [13, 0, None])
def test_train_both_ways(evaluation, right):
    task = through_nvflare(lpfl_messages.train_task(CLIENTS, arrays(), 7, evaluate=evaluation is not None))
    got, round_number, evaluate = lpfl_messages.read_train_task(task)
    assert_same(got, arrays())
    assert (round_number, evaluate) == (7, evaluation is not None)
    assert messages.read_clients(task) == CLIENTS

    sent = a_train_answer(soft_labels_correct=right, evaluation=evaluation)
    message = through_nvflare(lpfl_messages.train_answer(sent))
    back = lpfl_messages.read_train_answer(message, SHAPES, None if evaluation is None else TASK)
    assert_same(back.arrays, arrays())
    assert (back.labelled, back.soft_labelled, back.soft_labels_correct, back.loss) == (8, 16, right, 0.4375)
    assert back.counters == COUNTERS
    if evaluation is None:
        assert back.evaluation is None
    else:
        assert (back.evaluation.validation.tolist(), back.evaluation.n_validation) == ([20, 32], 32)
        assert (back.evaluation.test is None) == (evaluation.test is None)


def test_a_round_may_start_from_the_pretrained_parameters():
    task = through_nvflare(lpfl_messages.train_task(CLIENTS, {}, 1, evaluate=False))
    assert lpfl_messages.read_train_task(task) == ({}, 1, False)


def test_what_to_evaluate_arrives():
    task = through_nvflare(lpfl_messages.evaluate_task(CLIENTS, arrays()))
    assert_same(lpfl_messages.read_evaluate_task(task), arrays())
    assert messages.read_clients(task) == CLIENTS


def test_an_adapter_takes_four_bytes_a_number_on_the_wire():
    """r = 8 on two layers of 640: 40,960 numbers, and a few kB for names and counters."""
    big = {f"{LAYER}.{i}": np.ones(shape, dtype=np.float32) for i, shape in enumerate([(8, 640), (640, 8)] * 4)}
    n_numbers = 4 * 2 * 8 * 640
    for message in (
        lpfl_messages.train_task(CLIENTS, big, 1, True),
        lpfl_messages.train_answer(a_train_answer(arrays=big, evaluation=EVALUATION)),
    ):
        assert 4 * n_numbers < len(serialised(message)) < 4 * n_numbers + 5_000


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
def test_arrays_that_are_refused(name, value, message):
    trained, setup = lpfl_messages.train_answer(a_train_answer()), lpfl_messages.lpfl_setup_answer(a_setup_answer())
    for model, read in (
        (trained, lambda received: lpfl_messages.read_train_answer(received, SHAPES, None)),
        (setup, lpfl_messages.read_lpfl_setup_answer),
    ):
        if value is None:
            del model.arrays[name]
        else:
            model.arrays[name] = value
        with pytest.raises(ValueError, match=message):
            read(through_nvflare(model))


@pytest.mark.parametrize("big", [3.5e38, -1e300])
def test_numbers_that_float32_cannot_hold_are_refused(big):
    """They are finite as they arrive, and would not be any more when they are averaged."""
    model = lpfl_messages.train_answer(a_train_answer())
    model.arrays[A] = np.full((2, 5), big, dtype=np.float64)
    with pytest.raises(ValueError, match="lora_A"):
        lpfl_messages.read_train_answer(through_nvflare(model), SHAPES, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schema": 1}, "message schema 1, expected 3: update the older side"),
        ({"labelled": 0, "soft_labelled": 0}, "it trained on no examples"),
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
        ({"queries": "many"}, "'queries' is 'many', expected a whole number"),
    ],
)
def test_train_answers_that_are_refused(fields, message):
    model = lpfl_messages.train_answer(a_train_answer())
    model.fields.update(fields)
    with pytest.raises(ValueError, match=message):
        lpfl_messages.read_train_answer(through_nvflare(model), SHAPES, None)


def test_more_labelled_texts_than_k_for_each_class_are_refused():
    settings = {"options": {"k_shot": 4}, "task": {"label_values": [0, 1]}}
    model = lpfl_messages.train_answer(a_train_answer())  # of 8
    assert lpfl_messages.read_train_answer(through_nvflare(model), SHAPES, None, settings).labelled == 8
    model.fields["labelled"] = 9
    with pytest.raises(ValueError, match="'labelled' tells of 9 texts, and --k_shot gives a client 8 at the most"):
        lpfl_messages.read_train_answer(through_nvflare(model), SHAPES, None, settings)


def test_an_evaluation_that_was_asked_for_must_be_there():
    model = lpfl_messages.train_answer(a_train_answer())
    with pytest.raises(ValueError, match="'validation_loss' is missing"):
        lpfl_messages.read_train_answer(through_nvflare(model), SHAPES, TASK)


def test_a_message_of_something_else_is_refused():
    model = lpfl_messages.train_answer(a_train_answer())
    model.meta = {}
    with pytest.raises(ValueError, match="no 'flaretune' field"):
        lpfl_messages.read_train_answer(through_nvflare(model), SHAPES, None)
    task = lpfl_messages.train_task(CLIENTS, arrays(), 1, True)
    task.fields["schema"] = 1
    for read in (lpfl_messages.read_train_task, lpfl_messages.read_evaluate_task):
        with pytest.raises(ValueError, match="message schema 1, expected 3"):
            read(through_nvflare(task))


@pytest.mark.parametrize("initial", [None, {A: [2, 5]}, {A: [2, 5], B: [4, 3]}])
def test_a_setup_answer_must_name_the_arrays_that_it_brings(initial):
    settings = {key: value for key, value in {**SETTINGS, "initial": initial}.items() if value is not None}
    model = lpfl_messages.lpfl_setup_answer(a_setup_answer(settings))
    with pytest.raises((ValueError, KeyError)):
        lpfl_messages.read_lpfl_setup_answer(through_nvflare(model))
