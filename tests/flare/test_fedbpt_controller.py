"""The server of a FedBPT job: what it keeps of its rounds, and of answers that cannot be read."""

import json

import numpy as np
import pytest

from flaretune.config.fedbpt import FedBPTConfig
from flaretune.fedbpt.artifact import load_prompt
from flaretune.flare import fedbpt_messages, messages
from flaretune.flare.fedbpt_client import FedBPTTasks
from flaretune.flare.fedbpt_controller import FedBPTController
from tests.flare.federation import federate
from tests.learnable import write_reviews
from tests.models_for_tests import save_tiny_model

SITES = ["site-1", "site-2", "site-3"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fedbpt_controller")
    return {
        "model_name": str(save_tiny_model("roberta", folder / "roberta")),
        "dataset": str(write_reviews(folder / "data", n_train=90, n_test=30)),
    }


@pytest.fixture
def job(folders, tmp_path, monkeypatch, as_in_a_job):
    """Run a job of two rounds in this process; returns what was said, and the folder of its results."""

    def run(name="results", change=None, min_clients=1, **options):
        small = {"n_prompt_tokens": 3, "intrinsic_dim": 6, "k_shot": 9, "local_iter": 2, "dtype": "float32"}
        config = FedBPTConfig(**{**folders, **small, "local_seeds": "round", "eval_clients": "all", **options})
        controller = FedBPTController(num_rounds=2, min_clients=min_clients, seed=config.seed, covariance="diagonal")
        sites = {site: FedBPTTasks(config) for site in SITES}
        return federate(controller, sites, tmp_path / name, monkeypatch, change), tmp_path / name

    return run


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_the_server_tells_how_long_a_vector_may_be(job):
    told, _ = job(norm_prompt=1, prompt_norm_threshold=1.0, prompt_norm_threshold_upper=0.5)
    searches = [fedbpt_messages.read_search_task(m) for task, _, m in told.tasks if task == fedbpt_messages.SEARCH]
    assert [task[3] for task in searches] == [2.0, 2.0]  # 1 more while the mean is shorter than 0.5: once
    assert np.linalg.norm(searches[0][0].mean) < 0.5 < np.linalg.norm(searches[1][0].mean)


def test_a_job_keeps_its_rounds_and_the_mean_of_the_best_one(job):
    told, folder = job()
    assert told.panics == []
    assert [(task, n) for task, n, _ in told.tasks] == [
        (messages.SETUP, 0),
        (fedbpt_messages.SEARCH, 1),
        (fedbpt_messages.SEARCH, 2),
        (messages.EVALUATE, 2),
    ]
    asked = [fedbpt_messages.read_search_task(m)[2] for _, _, m in told.tasks[1:3]]
    assert asked == [False, True]  # the start was evaluated in the setup
    summary = read_summary(folder)
    assert (summary["method"], summary["artifact_kind"]) == ("FedBPT", "prompt")
    assert [r["round"] for r in summary["rounds"]] == [0, 1, 2]
    assert summary["queries"] == 2 * 3 * (2 * 5 + 1)
    assert [r["bytes_down"] for r in summary["rounds"]] == [1000.0] * 3
    assert {"fitness", "sigma", "fitness/site-2", "dev_accuracy/site-3", "memory_mb"} <= {t for t, _, _ in told.scalars}
    # the mean after round r is what the task after it brings to the sites
    means = [
        fedbpt_messages.read_search_task(told.tasks[1][2])[0].mean,
        fedbpt_messages.read_search_task(told.tasks[2][2])[0].mean,
        fedbpt_messages.read_evaluate_task(told.tasks[3][2]),
    ]
    prompt = load_prompt(folder / summary["artifact"])
    assert prompt.result["round"] == summary["best_round"]
    np.testing.assert_allclose(prompt.point, means[summary["best_round"]], rtol=1e-6, atol=1e-7)
    for round_number in (1, 2):
        answers = np.load(folder / "rounds" / f"round_{round_number:04d}.npz", allow_pickle=False)
        assert answers["sites"].tolist() == SITES
        sent = {s: m for s, task, n, m in told.answers if (task, n) == (fedbpt_messages.SEARCH, round_number)}
        np.testing.assert_array_equal(answers["means"], [sent[site].params["mean"] for site in SITES])
        np.testing.assert_array_equal(answers["fitness"], [sent[site].params["fitness"][0] for site in SITES])
    kept = np.load(folder / "distribution.npz", allow_pickle=False)
    np.testing.assert_allclose(kept["mean"], means[2], rtol=1e-6, atol=1e-7)


def test_equal_seeds_give_equal_runs_and_others_do_not(job):
    found = []
    for i, seed in enumerate((7, 7, 8)):
        _, folder = job(str(i), seed=seed)
        found.append(np.load(folder / "distribution.npz", allow_pickle=False)["mean"])
    assert found[0].tobytes() == found[1].tobytes()
    assert not np.array_equal(found[0], found[2])


def test_what_cannot_be_read_is_left_out(job, caplog):
    def damage(site, task, _round, answer):
        if task == fedbpt_messages.SEARCH and site == "site-2":
            answer.params["fitness"] = np.array([np.nan])
        return answer

    told, folder = job(change=damage, min_clients=2)
    assert told.panics == []
    assert [r["sites"] for r in read_summary(folder)["rounds"]] == [SITES, ["site-1", "site-3"], ["site-1", "site-3"]]
    assert "the search answer of site-2 is left out: array 'fitness' holds values that are not finite" in caplog.text
    told, folder = job("needed", change=damage, min_clients=3)
    assert told.panics == [
        "round 1: 2 of 3 sites gave a usable search answer and 3 are needed; without: site-2 (their own logs say why)"
    ]
