"""Jobs whose clients divide out the model's preference for a class: what is sent and saved, and predictions by it."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from flaretune.config.options import as_dict, build
from flaretune.data.load import load_file
from flaretune.engine import codec
from flaretune.engine.worker import Worker
from flaretune.errors import UserError
from flaretune.methods.base import ClientContext
from flaretune.methods.classifier import score
from flaretune.methods.client_data import load_data
from flaretune.methods.exchanged import FitRequest
from flaretune.methods.fedbpt.artifact import load_prompt
from flaretune.methods.lpfl.artifact import load_adapter
from flaretune.methods.registry import find_method, load_classifier
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import open_prompted_model
from tests.engine.in_process import run_job
from tests.engine.small_jobs import learned, small_config
from tests.flare.light_client import LightFedBPT
from tests.jobs_for_tests import read_summary
from tests.learnable import write_reviews

CLIENTS = ["site-1", "site-2", "site-3"]
FIVE = [*CLIENTS, "site-4", "site-5"]


@pytest.fixture(scope="module")
def few_reviews(tmp_path_factory):
    return str(write_reviews(tmp_path_factory.mktemp("few"), n_train=150, n_test=30))


@pytest.fixture(scope="module")
def job(roberta, few_reviews, tmp_path_factory):
    """Run a job, calibrated if nothing else is said; returns its options, what was said and its results' folder.

    A job that nothing is done to is run once for all tests.
    """

    def run(method, rounds=2, server=None, anew=False, change=None, clients=CLIENTS, **options):
        small = {"k_shot": 9, "dataset": few_reviews}
        small |= {"unlabelled": 36} if method == "lpfl" else {}
        config = small_config(method, roberta, **{**small, **options})
        folder = tmp_path_factory.mktemp(method)
        server = {name: str(value) for name, value in (server or {}).items()}
        told = run_job(
            find_method(method),
            dict.fromkeys(clients, config),
            folder,
            anew=anew,
            **({"change": change} if change else {}),
            num_rounds=rounds,
            **server,
        )
        assert told.client_failures == {}
        return config, told, folder

    run_once = functools.cache(run)

    def once(method, **how):
        done_to = {"server", "change", "anew"} & set(how)
        return (run if done_to else run_once)(method, **{"calibrate": "batch", **how})

    return once


def priors(told):
    return [codec.read_prior(message) for _, _, message in told.tasks]


def initial_probabilities(config, client, *wanted):
    """Of the model with the initial prompt on a client's texts, without the job's code: per set, float64 (N, C)."""
    spec, data = load_data(config, ClientContext(client, CLIENTS, None))
    settings = build(PromptSettings, as_dict(config))
    prompted = open_prompted_model(spec, config.model_name, settings, dtype="float32", device="cpu")
    found = []
    for examples in (getattr(data, name) for name in wanted):
        points = np.zeros((1, config.intrinsic_dim))
        powers = np.exp(prompted.black_box.label_logits(points, prompted.register(examples))[0].astype(float))
        found.append((powers / powers.sum(axis=1, keepdims=True), examples.labels))
    return found


def test_the_prior_is_that_of_all_clients_texts_with_the_initial_prompt(job):
    config, told, _ = job("fedbpt")
    first, *later = priors(told)
    assert first is None  # nobody knows it yet
    found = [p for c in CLIENTS for p, _ in initial_probabilities(config, c, "train", "validation")]
    geometric = np.prod(np.concatenate(found) ** (1 / sum(len(p) for p in found)), axis=0)
    expected = geometric / geometric.sum()
    assert len(later) == 3
    for prior in later:
        np.testing.assert_allclose(prior, expected, rtol=1e-5)


def test_a_prompt_predicts_at_home_as_it_did_at_the_clients(job, few_reviews):
    _, told, folder = job("fedbpt", rounds=3)
    file, summary = folder / "best_prompt.safetensors", read_summary(folder)
    classifier = load_classifier(file, dtype="float32", device="cpu")
    test = load_file(classifier.spec, f"{few_reviews}/validation.csv")
    found = classifier.probabilities(test.texts)
    assert score(classifier.spec, found, test.labels).value == pytest.approx(summary["test_accuracy"], abs=1e-9)
    np.testing.assert_allclose(load_prompt(file).result["prior"], priors(told)[-1])


def test_what_is_searched_for_is_the_calibrated_loss(job):
    """With a calibrated loss the clients' fitness differs from that of the same search without."""
    fitness = {}
    for calibrate in ("batch", "none"):
        _, told, folder = job("fedbpt", calibrate=calibrate)
        fitness[calibrate] = read_summary(folder)["rounds"][1]["client_metrics"]["fitness"]
        assert all(("prior" in m.fields) == (calibrate == "batch" and n > 0) for _, n, m in told.tasks)
    assert fitness["batch"].keys() == set(CLIENTS)
    assert all(fitness["batch"][client] != fitness["none"][client] for client in CLIENTS)


def test_a_run_that_resumes_keeps_its_prior(job, tmp_path):
    _, whole, folder = job("fedbpt", rounds=3)
    states = {"state_dir": str(tmp_path / "client states")}
    server = {"checkpoint": tmp_path / "checkpoints"}
    job("fedbpt", rounds=1, server=server, **states)
    _, resumed, again = job("fedbpt", rounds=3, server=server, **states)
    fits = [codec.read_prior(m) for task, _, m in resumed.tasks if task == codec.FIT]
    assert len(fits) == 2
    assert all(np.array_equal(prior, priors(whole)[-1]) for prior in fits)
    expected, found = read_summary(folder)["rounds"], read_summary(again)["rounds"]
    for key in ("accuracy", "validation_loss"):
        assert [r[key] for r in found] == [r[key] for r in expected]
    assert [r["metrics"]["fitness"] for r in found[1:]] == [r["metrics"]["fitness"] for r in expected[1:]]


def test_an_adapter_predicts_at_home_as_it_did_at_the_clients(job, few_reviews):
    _, told, folder = job("lpfl")
    adapter = folder / "last_adapter"
    prior = load_adapter(adapter).result["prior"]
    np.testing.assert_array_equal(prior, priors(told)[-1])
    classifier = load_classifier(adapter, dtype="float32", device="cpu")
    test = load_file(classifier.spec, f"{few_reviews}/validation.csv")
    found = score(classifier.spec, classifier.probabilities(test.texts), test.labels).value
    assert found == pytest.approx(read_summary(folder)["rounds"][-1]["accuracy"], abs=1e-9)
    zero_shot = score(classifier.spec, classifier.zero_shot(test), test.labels).value
    assert zero_shot == pytest.approx(read_summary(folder)["zero_shot_accuracy"], abs=1e-9)
    np.testing.assert_array_equal(classifier.probabilities(test.texts), classifier.probabilities(test.texts))


def test_round_0_is_the_start_divided_by_its_prior(job):
    config, told, folder = job("fedbpt", rounds=1, eval_clients="first")
    [(probabilities, labels)] = initial_probabilities(config, CLIENTS[0], "test")
    correct = (probabilities / priors(told)[-1]).argmax(axis=1) == labels
    assert read_summary(folder)["rounds"][0]["accuracy"] == pytest.approx(correct.mean(), abs=1e-9)


def texts_of_all_clients(config) -> list:
    found = []
    for client in CLIENTS:
        _, data = load_data(config, ClientContext(client, CLIENTS, None), unlabelled=config.unlabelled)
        found += [*data.train.texts, *data.validation.texts, *data.unlabelled.texts]
    return found


def preference(adapter, texts) -> float:
    """Of the saved adapter for the second class: mean log-odds over texts."""
    p = load_classifier(adapter, dtype="float32", device="cpu").probabilities(texts)
    return float(np.mean(np.log(p[:, 1] / p[:, 0])))


def test_an_adapter_prefers_no_class_whatever_it_has_learned(job):
    """The prior is made anew for what every round ends with; that of the round before would not be its own."""
    config, told, folder = job("lpfl", rounds=3, learning_rate=0.05)
    texts = texts_of_all_clients(config)
    assert preference(folder / "last_adapter", texts) == pytest.approx(0, abs=1e-4)
    assert preference(folder / "best_adapter", texts) == pytest.approx(0, abs=1e-4)
    before_fit = [codec.read_prior(m) for _, _, m in told.tasks if m.fields.get("step", "") == ""][1:]
    odds = [np.log(prior[1] / prior[0]) for prior in before_fit]
    assert len(odds) == 4  # three rounds and the evaluation
    assert np.abs(np.diff(odds)).min() > 1e-3


def test_the_prior_has_no_part_in_training(job):
    trained = {}
    for calibrate in ("batch", "none"):
        _, told, _ = job("lpfl", rounds=1, calibrate=calibrate)
        trained[calibrate] = {c: learned(m) for c, task, _, m in told.replies if task == codec.FIT and learned(m)}
        assert trained[calibrate].keys() == set(CLIENTS)
    for client, arrays in trained["batch"].items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(values, trained["none"][client][name])


def test_a_client_without_a_part_in_the_prior_still_counts_in_the_round(job):
    def lose(client, task, round_number, reply):
        is_lost = client == "site-2" and task == codec.FIT and round_number == 2 and "log_prob_sums" in reply.arrays
        return None if is_lost else reply

    _, told, folder = job("lpfl", change=lose)
    assert told.failure == ""
    last = read_summary(folder)["rounds"][-1]
    assert (last["clients"], last["excluded"]) == (CLIENTS, {})
    assert last["client_metrics"]["train_loss"].keys() == set(CLIENTS)


def test_a_late_client_of_a_job_that_trains_every_parameter_joins_its_first_round(job):
    """The prior is then made anew for a model that the server knows nothing of yet: the pretrained one."""
    missed = []

    def late(client, task, _round, reply):
        if (client, task) == ("site-3", codec.INITIALIZE) and not missed:
            return missed.append(client)
        return reply

    _, told, folder = job("lpfl", change=late, tuning="full")
    assert told.failure == ""
    rounds = read_summary(folder)["rounds"]
    assert [r["clients"] for r in rounds] == [CLIENTS[:2], CLIENTS, CLIENTS]
    assert len([p for p in priors(told) if p is not None]) >= 2


@pytest.mark.parametrize(("rule", "least", "most"), [("mean", 2.0, 6.0), ("clipped", 0.0, 1.2), ("median", 0.0, 0.3)])
def test_one_client_of_five_chooses_the_prior_under_mean_alone(job, rule, least, most):
    """It says that its texts, twice as many as it has, are of one class beyond doubt."""

    def lie(client, _task, _round, reply):
        if client == "site-2" and "log_prob_sums" in reply.arrays:
            n_texts = 2 * reply.fields["n_texts"]
            reply.fields["n_texts"] = n_texts
            reply.arrays["log_prob_sums"] = np.array([n_texts * np.log(1e-6), 0.0])
        return reply

    found = {}
    for name, change in (("honest", None), ("lie", lie)):
        server = {"aggregation": rule}
        _, told, folder = job("lpfl", server=server, change=change, clients=FIVE, k_shot=15, eval_clients="first")
        found[name] = np.array([np.log(p[1] / p[0]) for p in priors(told) if p is not None])
        clipped = [r["clipped"] for r in read_summary(folder)["rounds"]]
        held = ["site-2"] if name == "lie" and rule != "mean" else []
        assert clipped == [held, [], held]  # the first round takes the prior of the start
    moved = np.abs(found["lie"][0] - found["honest"][0])  # later ones are of other models
    assert least <= moved <= most


@pytest.mark.parametrize("resumed", [False, True])
def test_a_calibrated_job_that_is_interrupted_has_the_same_numbers(job, tmp_path, resumed):
    """By the server, which resumes after a round, or by clients whose process is started anew for every task."""
    states = {"state_dir": str(tmp_path / "client states")}
    _, _, whole = job("lpfl")
    if resumed:
        server = {"checkpoint": tmp_path / "checkpoints"}
        job("lpfl", rounds=1, server=server, **states)
        _, _, again = job("lpfl", server=server, **states)
    else:
        _, _, again = job("lpfl", anew=True, **states)
    expected, found = (read_summary(folder)["rounds"] for folder in (whole, again))
    for key in ("accuracy", "validation_loss"):
        assert [r[key] for r in found] == [r[key] for r in expected]


def test_whether_a_job_is_calibrated_does_not_depend_on_the_adapter_that_it_goes_on_from(job, caplog):
    config, _, plain = job("lpfl", rounds=1, calibrate="none")
    _, told, calibrated = job("lpfl", rounds=1, server={"init_adapter": plain / "last_adapter"})
    assert preference(calibrated / "last_adapter", texts_of_all_clients(config)) == pytest.approx(0, abs=1e-4)
    server = {"init_adapter": calibrated / "last_adapter"}
    _, told, _ = job("lpfl", rounds=1, server=server, calibrate="none")
    assert priors(told) == [None] * 3
    assert "had --calibrate batch, and this job divides nothing out" in caplog.text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"calibrate": "none"}, "this client has --calibrate none"),
        ({"calibrate": "none", "dp_noise": 1.0}, "this client has --calibrate none"),
        ({"calibrate": "batch"}, "this method makes none after the start"),
    ],
)
def test_a_client_tells_no_prior_that_the_job_did_not_ask_for(options, sentence, tmp_path):
    config = find_method("fedbpt").client_config(intrinsic_dim=5, **options)
    worker = Worker(LightFedBPT(), config, "a", tmp_path / "states", tmp_path / "runs")
    request = FitRequest(1, {"mean": np.zeros(5)}, {}, evaluate=False, step=codec.CALIBRATE)
    with pytest.raises(UserError, match=sentence):
        worker(codec.FIT, codec.fit_message(codec.task(["a"], "", 0, None), request))
