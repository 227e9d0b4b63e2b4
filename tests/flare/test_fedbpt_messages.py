"""Messages through NVFlare's own serialiser, and what is refused on receipt."""

import numpy as np
import pytest
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.app_common.decomposers import common_decomposers
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.fuel.utils import fobs

from flaretune.fedbpt.answers import Counters, EvaluateAnswer, Evaluation, SearchAnswer, SetupAnswer
from flaretune.fedbpt.distribution import Distribution
from flaretune.fedbpt.local_search import LocalResult
from flaretune.flare import fedbpt_messages, messages

COUNTERS = Counters(queries=41, example_forwards=1312, seconds=3.25)
EVALUATION = Evaluation(np.array([20, 32]), 17.5, 32, np.array([71, 100]))


@pytest.fixture(autouse=True)
def _as_in_a_job(monkeypatch):
    flare_decomposers.register()
    common_decomposers.register()
    monkeypatch.setenv("NVFLARE_NP_DOWNLOAD_CHUNK_SIZE", "0")


def through_nvflare(model):
    """What arrives when NVFlare has sent it."""
    model.current_round, model.total_rounds = 3, 10
    received = fobs.loads(fobs.dumps(FLModelUtils.to_shareable(model)))
    return FLModelUtils.from_shareable(received)


def test_setup_both_ways():
    sites = ["hospital-a", "hospital-b"]
    assert messages.read_sites(through_nvflare(messages.setup_task(sites))) == sites
    settings = {"options": {"intrinsic_dim": 500, "sigma": 1.0}, "task": {"label_words": ["bad", "great"]}}
    sent = SetupAnswer(settings, 64, np.array([51, 100]), EVALUATION, COUNTERS)
    got = messages.read_setup_answer(through_nvflare(messages.setup_answer(sent)))
    assert (got.settings, got.n_train, got.counters) == (settings, 64, COUNTERS)
    assert got.zero_shot.tolist() == [51, 100]
    assert (got.evaluation.dev.tolist(), got.evaluation.test.tolist()) == ([20, 32], [71, 100])
    assert (got.evaluation.dev_loss_sum, got.evaluation.dev_size) == (17.5, 32)


def test_site_without_test_data_says_nothing_of_it():
    evaluation = Evaluation(np.array([20, 32]), 17.5, 32, None)
    got = messages.read_setup_answer(
        through_nvflare(messages.setup_answer(SetupAnswer({}, 8, None, evaluation, COUNTERS)))
    )
    assert got.zero_shot is None
    assert got.evaluation.test is None


@pytest.mark.parametrize("form", ["full", "diagonal", "identity"])
def test_search_both_ways(form):
    sent = Distribution(np.linspace(-1, 1, 20), 0.875, np.full(20, 1.5))
    got, round_number, evaluate = fedbpt_messages.read_search_task(
        through_nvflare(fedbpt_messages.search_task(["a", "b"], sent, form, 7, True))
    )
    np.testing.assert_allclose(got.mean, sent.mean, rtol=1e-6)
    assert (got.sigma, round_number, evaluate) == (0.875, 7, True)
    np.testing.assert_allclose(np.diag(got.covariance_matrix()), 1.0 if form == "identity" else 1.5)

    answer = SearchAnswer(LocalResult(np.linspace(0, 1, 20), 0.625, 7.5, 41), 32, COUNTERS, EVALUATION)
    back = fedbpt_messages.read_search_answer(through_nvflare(fedbpt_messages.search_answer(answer)), 20, 2)
    np.testing.assert_allclose(back.result.mean, answer.result.mean, rtol=1e-6)
    assert (back.result.fitness, back.result.sigma_square_sum) == (0.625, 7.5)
    assert (back.n_train, back.counters) == (32, COUNTERS)
    assert back.evaluation.test.tolist() == [71, 100]


def test_evaluate_both_ways():
    point = np.array([0.5, -0.25, 1e-3])
    got = fedbpt_messages.read_evaluate_task(through_nvflare(fedbpt_messages.evaluate_task(["a", "b"], point)))
    np.testing.assert_allclose(got, point, rtol=1e-6)
    back = messages.read_evaluate_answer(
        through_nvflare(messages.evaluate_answer(EvaluateAnswer(EVALUATION, COUNTERS))), 2
    )
    assert back.evaluation.test.tolist() == [71, 100]


def test_sizes_on_the_wire_at_500_dimensions():
    """The limits of the specification: 0.6 MB with the full covariance, 10 KB with the small forms."""
    distribution = Distribution(np.zeros(500), 1.0, np.eye(500))

    def size(model):
        return len(fobs.dumps(FLModelUtils.to_shareable(model)))

    answer = SearchAnswer(LocalResult(np.zeros(500), 0.5, 8.0, 41), 32, COUNTERS, EVALUATION)
    down = {
        f: size(fedbpt_messages.search_task(["site-1"] * 10, distribution, f, 1, True))
        for f in ("full", "diagonal", "identity")
    }
    assert size(fedbpt_messages.search_answer(answer)) < 10_000
    assert 500_000 < down["full"] < 600_000
    assert down["identity"] < down["diagonal"] < 10_000


def a_search_answer():
    return fedbpt_messages.search_answer(SearchAnswer(LocalResult(np.zeros(5), 0.5, 8.0, 41), 32, COUNTERS, None))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mean", np.zeros(4), r"'mean' has shape \(4,\), expected \(5,\)"),
        ("mean", np.full(5, np.nan), "'mean' holds values that are not finite"),
        ("mean", np.array(list("abcde")), "type <U1, expected numbers"),
        ("mean", None, "'mean' is missing"),
        ("fitness", np.array([np.inf]), "'fitness' holds values that are not finite"),
        ("fitness", np.zeros(2), r"'fitness' has shape \(2,\), expected \(1,\)"),
        ("sigma_square_sum", np.array([-1.0]), "'sigma_square_sum' is -1, expected a positive number"),
    ],
)
def test_search_answers_that_are_refused(name, value, message):
    model = a_search_answer()
    if value is None:
        del model.params[name]
    else:
        model.params[name] = value
    with pytest.raises(ValueError, match=message):
        fedbpt_messages.read_search_answer(through_nvflare(model), 5, None)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema", 2, "message schema 2, expected 1: update the older side"),
        ("queries", -1, "'queries' is -1, expected a whole number"),
        ("n_train", "many", "'n_train' is 'many', expected a whole number"),
        ("seconds", float("nan"), "'seconds' is nan, expected a number"),
    ],
)
def test_fields_that_are_refused(field, value, message):
    model = a_search_answer()
    model.meta["flaretune"][field] = value
    with pytest.raises(ValueError, match=message):
        fedbpt_messages.read_search_answer(through_nvflare(model), 5, None)


def test_a_message_of_something_else_is_refused():
    model = a_search_answer()
    model.meta = {}
    with pytest.raises(ValueError, match="no 'flaretune' field"):
        fedbpt_messages.read_search_answer(through_nvflare(model), 5, None)


@pytest.mark.parametrize("counts", [np.array([-1, 5]), np.array([0.5, 5.0]), np.array([5]), np.zeros(3, int)])
def test_counts_that_are_none_are_refused(counts):
    model = messages.evaluate_answer(EvaluateAnswer(EVALUATION, COUNTERS))
    model.params["test"] = counts
    with pytest.raises(ValueError, match="'test' is not a vector of 2 counts"):
        messages.read_evaluate_answer(through_nvflare(model), 2)


def test_an_evaluation_that_was_asked_for_must_be_there():
    with pytest.raises(ValueError, match="'dev_loss' is missing"):
        fedbpt_messages.read_search_answer(through_nvflare(a_search_answer()), 5, 2)
