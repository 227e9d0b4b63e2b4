"""FedBPT's messages through NVFlare's own serialiser, and what is refused on receipt; see test_messages.py too."""

from contextlib import nullcontext

import numpy as np
import pytest
from flaretune.methods.fedbpt.answers import SearchAnswer

from flaretune.flare import fedbpt_messages, messages
from flaretune.methods.fedbpt.distribution import Distribution
from flaretune.methods.fedbpt.local_search import LocalResult
from tests.flare.sending import COUNTERS, EVALUATION, TASK, serialised, through_nvflare

pytestmark = pytest.mark.usefixtures("as_in_a_job")


@pytest.mark.parametrize("form", ["full", "diagonal", "identity"])
def test_search_both_ways(form):
    sent = Distribution(np.linspace(-1, 1, 20), 0.875, np.full(20, 1.5))
    got, round_number, evaluate, norm_limit = fedbpt_messages.read_search_task(
        through_nvflare(fedbpt_messages.search_task(["a", "b"], sent, form, 7, True, 16.5))
    )
    assert norm_limit == 16.5
    assert fedbpt_messages.read_search_task(fedbpt_messages.search_task(["a"], sent, form, 7, True))[3] is None
    np.testing.assert_allclose(got.mean, sent.mean, rtol=1e-6)
    assert (got.sigma, round_number, evaluate) == (0.875, 7, True)
    np.testing.assert_allclose(np.diag(got.covariance_matrix()), 1.0 if form == "identity" else 1.5)

    answer = SearchAnswer(LocalResult(np.linspace(0, 1, 20), 0.625, 7.5, 41), 32, COUNTERS, EVALUATION)
    back = fedbpt_messages.read_search_answer(through_nvflare(fedbpt_messages.search_answer(answer)), 20, TASK)
    np.testing.assert_allclose(back.result.mean, answer.result.mean, rtol=1e-6)
    assert (back.result.fitness, back.result.sigma_square_sum) == (0.625, 7.5)
    assert (back.n_train, back.counters) == (32, COUNTERS)
    assert back.evaluation.test.tolist() == [71, 100]


def test_the_point_to_evaluate_arrives():
    point = np.array([0.5, -0.25, 1e-3])
    task = through_nvflare(fedbpt_messages.evaluate_task(["a", "b"], point))
    np.testing.assert_allclose(fedbpt_messages.read_evaluate_task(task), point, rtol=1e-6)
    assert messages.read_sites(task) == ["a", "b"]


def test_sizes_on_the_wire_at_500_dimensions():
    """The limits of the specification: 0.6 MB with the full covariance, 10 KB with the small forms."""
    distribution = Distribution(np.zeros(500), 1.0, np.eye(500))

    answer = SearchAnswer(LocalResult(np.zeros(500), 0.5, 8.0, 41), 32, COUNTERS, EVALUATION)
    down = {
        f: len(serialised(fedbpt_messages.search_task(["site-1"] * 10, distribution, f, 1, True)))
        for f in ("full", "diagonal", "identity")
    }
    assert len(serialised(fedbpt_messages.search_answer(answer))) < 10_000
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
        ("fitness", np.array([1e308]), r"'fitness' is 1e\+308, which the loss cannot be"),
        ("sigma_square_sum", np.array([1e308]), r"'sigma_square_sum' is 1e\+308, expected a positive number"),
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
        ("schema", 1, "message schema 1, expected 3: update the older side"),
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


def test_an_evaluation_that_was_asked_for_must_be_there():
    with pytest.raises(ValueError, match="'dev_loss' is missing"):
        fedbpt_messages.read_search_answer(through_nvflare(a_search_answer()), 5, TASK)


SETTINGS = {
    "options": {"k_shot": 16, "local_iter": 8, "perturb": 0, "bound": 0.0},
    "task": {"label_values": [0, 1]},
    "popsize": 5,
}


def test_the_number_of_questions_follows_from_the_settings():
    """8 generations of 5 candidates and their mean, on 32 texts."""
    model = through_nvflare(a_search_answer())
    assert fedbpt_messages.read_search_answer(model, 5, None, settings=SETTINGS).counters == COUNTERS
    perturbed = {**SETTINGS, "options": {**SETTINGS["options"], "perturb": 1}}
    with pytest.raises(ValueError, match="'example_forwards' is 1312, and 2624 follows from the settings"):
        fedbpt_messages.read_search_answer(model, 5, None, settings=perturbed)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("queries", 2**50, "'queries' is 1125899906842624, and 41 follows from the settings"),
        ("example_forwards", 1311, "'example_forwards' is 1311, and 1312 follows from the settings"),
        ("n_train", 33, "'n_train' tells of 33 texts, and --k_shot gives a site 32 at the most"),
    ],
)
def test_other_numbers_of_questions_are_refused(field, value, message):
    model = a_search_answer()
    model.meta["flaretune"][field] = value
    with pytest.raises(ValueError, match=message):
        fedbpt_messages.read_search_answer(through_nvflare(model), 5, None, settings=SETTINGS)


@pytest.mark.parametrize(("farthest", "refused"), [(0.1, False), (0.1001, True), (-0.1001, True)])
def test_a_mean_beyond_the_bound_is_refused(farthest, refused):
    """And one on it is not, though float32, in which it travels, has no 0.1."""
    answer = a_search_answer()
    answer.params["mean"] = np.full(5, farthest, dtype=np.float32)
    settings = {**SETTINGS, "options": {**SETTINGS["options"], "bound": 0.1}}
    with pytest.raises(ValueError, match=r"beyond --bound 0\.1") if refused else nullcontext():
        fedbpt_messages.read_search_answer(through_nvflare(answer), 5, None, settings=settings)
