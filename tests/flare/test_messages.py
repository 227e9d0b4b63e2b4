"""The tasks of both methods, their replies, and a whole job, through NVFlare's own serialiser."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from flaretune.engine import codec
from flaretune.engine.worker import Worker
from flaretune.methods.exchanged import CalibrateResult, EvaluateResult, FitRequest, FitResult, InitializeResult
from flaretune.methods.fedbpt.distribution import Distribution, pack, unpack
from flaretune.methods.message import Message
from flaretune.tasks.calibration import LogProbSums
from tests.engine.made_up_results import (
    CLIENTS,
    COMMON,
    COUNTERS,
    EVALUATION,
    FEDBPT,
    LAYER,
    LPFL,
    adapter_arrays,
    an_initialize_result,
    settings_of,
)
from tests.engine.whole_jobs import JOBS, run_small_job
from tests.flare.sending import serialised, through_nvflare

pytestmark = pytest.mark.usefixtures("as_in_a_job")

TASK = settings_of(FEDBPT)["task"]


def assert_same(got: dict[str, np.ndarray], sent: dict[str, np.ndarray]) -> None:
    assert list(got) == list(sent)
    for name, values in sent.items():
        assert got[name].dtype == values.dtype
        np.testing.assert_array_equal(got[name], values)


def assert_evaluation(got, test=(71, 100)) -> None:
    assert (got.validation.tolist(), got.validation_loss_sum, got.n_validation) == ([20, 32], 17.5, 32)
    assert got.validation.dtype == np.int64
    if test is None:
        assert got.test is None
    else:
        assert (got.test.tolist(), got.test.dtype) == (list(test), np.int64)


# ---- initialize ----


def initialized(result: InitializeResult, method) -> InitializeResult:
    return codec.read_initialize_reply(through_nvflare(codec.initialize_reply(result)), method)


@pytest.mark.parametrize("method", [FEDBPT, LPFL], ids=["fedbpt", "lpfl"])
def test_initialize_both_ways(method):
    task = through_nvflare(codec.initialize_message(COMMON, 7))
    assert (codec.read_clients(task), codec.read_num_rounds(task), codec.read_run(task)) == (CLIENTS, 7, ("", 0))
    assert codec.read_prior(task) is None
    log_probs = LogProbSums(np.array([-12.25, -19.75]), 16)
    sent = replace(an_initialize_result(method, seed=7), dtype="bfloat16", log_probs=log_probs)
    got = initialized(sent, method)
    assert (got.settings, got.n_train, got.counters, got.dtype) == (sent.settings, 8, COUNTERS, "bfloat16")
    assert got.zero_shot.tolist() == [51, 100]
    assert (got.log_probs.sums.tolist(), got.log_probs.n_texts) == ([-12.25, -19.75], 16)
    assert_evaluation(got.evaluation)
    assert_same(got.arrays, sent.arrays)


@pytest.mark.parametrize(
    ("sums", "n_texts"),
    [([-12.25, 0.5], 16), ([-12.25, -400.0], 16), ([-1.0, -1.0], 16), ([-12.25, -19.75], 0), ([np.nan, -9.0], 16)],
)
def test_log_probabilities_that_no_texts_have_are_refused(sums, n_texts):
    sent = replace(an_initialize_result(), log_probs=LogProbSums(np.array(sums), n_texts))
    with pytest.raises(ValueError, match="log_prob_sums"):
        initialized(sent, FEDBPT)


def test_what_a_new_prior_is_made_from_arrives():
    sent = codec.calibrate_reply(CalibrateResult(LogProbSums(np.array([-12.25, -19.75]), 16), COUNTERS))
    got = codec.read_calibrate_reply(through_nvflare(sent), TASK)
    assert (got.log_probs.sums.tolist(), got.log_probs.n_texts, got.counters) == ([-12.25, -19.75], 16, COUNTERS)


def test_a_run_and_a_prior_arrive():
    common = codec.task(CLIENTS, "0f1e", 4, np.array([0.25, 0.75]))
    task = through_nvflare(codec.initialize_message(common, 7))
    assert codec.read_run(task) == ("0f1e", 4)
    assert codec.read_prior(task).tolist() == [0.25, 0.75]


def test_a_client_without_test_data_says_nothing_of_it():
    sent = replace(an_initialize_result(), zero_shot=None, evaluation=replace(EVALUATION, test=None))
    got = initialized(sent, FEDBPT)
    assert (got.zero_shot, got.dtype, got.log_probs) == (None, None, None)
    assert_evaluation(got.evaluation, test=None)


def test_a_client_that_trains_every_parameter_has_no_initial_adapter():
    sent = an_initialize_result(LPFL, tuning="full")
    sent = replace(sent, settings={**sent.settings, "adapter": {}, "initial": {}}, arrays={})
    got = initialized(sent, LPFL)
    assert got.arrays == {}
    assert_evaluation(got.evaluation)


# ---- fit ----


@pytest.mark.parametrize("form", ["full", "diagonal", "identity"])
@pytest.mark.parametrize("numbers", [{"norm_limit": 16.5}, {}])
def test_fit_of_fedbpt_both_ways(form, numbers):
    sent = Distribution(np.linspace(-1, 1, 20), 0.875, np.full(20, 1.5))
    task = through_nvflare(codec.fit_message(COMMON, FitRequest(7, pack(sent, form), numbers, True)))
    request = codec.read_fit_request(task)
    assert (request.round, request.evaluate, request.numbers) == (7, True, numbers)
    assert codec.read_clients(task) == CLIENTS
    got = unpack(request.arrays)
    np.testing.assert_allclose(got.mean, sent.mean, rtol=1e-6)
    assert got.sigma == 0.875
    np.testing.assert_allclose(np.diag(got.covariance_matrix()), 1.0 if form == "identity" else 1.5)

    found = {
        "mean": np.linspace(0, 1, 20, dtype=np.float32),
        "fitness": np.array([0.625]),
        "sigma_square_sum": np.array([7.5]),
    }
    reply = through_nvflare(codec.fit_reply(FitResult(found, {"n_train": 32}, COUNTERS, EVALUATION)))
    back = codec.read_fit_reply(reply, TASK)
    assert_same(back.arrays, found)
    assert (back.numbers, back.counters) == ({"n_train": 32}, COUNTERS)
    assert_evaluation(back.evaluation)


@pytest.mark.parametrize("evaluation", [EVALUATION, replace(EVALUATION, test=None), None])
@pytest.mark.parametrize("correct", [13, 0, None])
def test_fit_of_lpfl_both_ways(evaluation, correct):
    task = codec.fit_message(COMMON, FitRequest(7, adapter_arrays(), {}, evaluation is not None))
    request = codec.read_fit_request(through_nvflare(task))
    assert_same(request.arrays, adapter_arrays())
    assert (request.round, request.evaluate) == (7, evaluation is not None)
    assert codec.read_clients(through_nvflare(task)) == CLIENTS

    numbers = {"labelled": 8, "soft_labelled": 16, "loss": 0.4375}
    numbers |= {} if correct is None else {"soft_labels_correct": correct}
    reply = through_nvflare(codec.fit_reply(FitResult(adapter_arrays(), numbers, COUNTERS, evaluation)))
    back = codec.read_fit_reply(reply, None if evaluation is None else TASK)
    assert_same(back.arrays, adapter_arrays())
    assert (back.numbers, back.counters) == (numbers, COUNTERS)
    if evaluation is None:
        assert back.evaluation is None
    else:
        assert_evaluation(back.evaluation, None if evaluation.test is None else (71, 100))


def test_a_round_may_start_from_the_pretrained_parameters():
    request = codec.read_fit_request(through_nvflare(codec.fit_message(COMMON, FitRequest(1, {}, {}, False))))
    assert (request.arrays, request.round, request.evaluate) == ({}, 1, False)


# ---- evaluate ----


@pytest.mark.parametrize("arrays", [{"mean": np.array([0.5, -0.25, 1e-3], np.float32)}, adapter_arrays()])
def test_what_to_evaluate_arrives(arrays):
    task = through_nvflare(codec.evaluate_message(COMMON, 3, arrays))
    assert_same(codec.read_evaluate_request(task), arrays)
    assert codec.read_clients(task) == CLIENTS


def test_an_evaluation_comes_back():
    back = codec.read_evaluate_reply(through_nvflare(codec.evaluate_reply(EvaluateResult(EVALUATION, COUNTERS))), TASK)
    assert back.counters == COUNTERS
    assert_evaluation(back.evaluation)


@pytest.mark.parametrize("read", [codec.read_fit_request, codec.read_evaluate_request, codec.read_clients])
def test_a_message_of_something_else_is_refused(read):
    with pytest.raises(ValueError, match="no 'flaretune' field: is the other side running flaretune"):
        read(through_nvflare(Message(adapter_arrays(), None)))


# ---- sizes ----


def test_sizes_on_the_wire_at_500_dimensions():
    """The limits of the specification: 0.6 MB with the full covariance, 10 KB with the small forms."""
    distribution = Distribution(np.zeros(500), 1.0, np.eye(500))
    common = codec.task(["site-1"] * 10, "", 0, None)
    down = {
        form: len(serialised(codec.fit_message(common, FitRequest(1, pack(distribution, form), {}, True))))
        for form in ("full", "diagonal", "identity")
    }
    found = {
        "mean": np.zeros(500, np.float32),
        "fitness": np.array([0.5]),
        "sigma_square_sum": np.array([8.0]),
    }
    assert len(serialised(codec.fit_reply(FitResult(found, {"n_train": 32}, COUNTERS, EVALUATION)))) < 10_000
    assert 500_000 < down["full"] < 600_000
    assert down["identity"] < down["diagonal"] < 10_000


def test_an_adapter_takes_four_bytes_a_number_on_the_wire():
    """r = 8 on two layers of 640: 40,960 numbers, and a few kB for names and counters."""
    big = {f"{LAYER}.{i}": np.ones(shape, dtype=np.float32) for i, shape in enumerate([(8, 640), (640, 8)] * 4)}
    n_numbers = 4 * 2 * 8 * 640
    numbers = {"labelled": 8, "soft_labelled": 16, "soft_labels_correct": 13, "loss": 0.4375}
    for message in (
        codec.fit_message(COMMON, FitRequest(1, big, {}, True)),
        codec.fit_reply(FitResult(big, numbers, COUNTERS, EVALUATION)),
    ):
        assert 4 * n_numbers < len(serialised(message)) < 4 * n_numbers + 5_000


# ---- a whole job ----


def worker_over_nvflare(*args):
    """A client's `Worker` whose tasks and replies are serialised by NVFlare."""
    worker = Worker(*args)
    return lambda task, message: through_nvflare(worker(task, through_nvflare(message)))


def compared(told) -> list[dict]:
    """Records of the rounds without what a clock or the process's size says."""
    measured = ("seconds", "overhead_seconds", "memory_mb", "server_memory_mb")
    return [{k: v for k, v in asdict(record).items() if k not in measured} for record in told.records]


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_the_same_to_the_bit_with_and_without_nvflare(name, roberta, tmp_path):
    here = run_small_job(name, roberta, tmp_path, "here")
    there = run_small_job(name, roberta, tmp_path, "there", worker=worker_over_nvflare)
    assert (there.failure, there.client_failures) == ("", {})
    assert compared(there) == compared(here)
    for sent in ("tasks", "replies"):
        for one, other in zip(getattr(here, sent), getattr(there, sent), strict=True):
            assert one[:-1] == other[:-1]
            assert_same(other[-1].arrays, one[-1].arrays)
