"""The server of a FedBPT job: what it keeps of its rounds, and of answers that cannot be read."""

import json
from pathlib import Path

import numpy as np
import pytest
from flaretune.flare.fedbpt_client import FedBPTTasks
from flaretune.flare.fedbpt_controller import FedBPTController

from flaretune.engine import checkpoint
from flaretune.engine import resume as kept_run
from flaretune.flare import fedbpt_messages, messages
from flaretune.methods.fedbpt.artifact import load_prompt
from flaretune.methods.fedbpt.config import FedBPTConfig
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

    def run(name="results", change=None, min_clients=1, rounds=2, server=None, **options):
        small = {"n_prompt_tokens": 3, "intrinsic_dim": 6, "k_shot": 9, "local_iter": 2, "dtype": "float32"}
        config = FedBPTConfig(**{**folders, **small, "eval_clients": "all", **options})
        asked = {"seed": config.seed, "covariance": "diagonal", **(server or {})}
        controller = FedBPTController(num_rounds=rounds, min_clients=min_clients, **asked)
        sites = {site: FedBPTTasks(config) for site in SITES}
        return federate(controller, sites, tmp_path / name, monkeypatch, change), tmp_path / name

    return run


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_the_server_tells_how_long_a_vector_may_be(job):
    told, _ = job(max_norm="1:0.5")
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


# ---- going on ----


def no_answers_from(round_number):
    """The server is stopped in this round."""
    return lambda site, task, n, answer: None if n >= round_number else answer


@pytest.fixture
def kept(tmp_path):
    return {"checkpoint": str(tmp_path / "kept")}


@pytest.mark.parametrize("options", [{}, {"max_norm": "1:20"}, {"perturb": 1}])
@pytest.mark.parametrize("stopped_in", [1, 3])
def test_a_run_goes_on_as_if_it_had_not_been_stopped(job, kept, options, stopped_in):
    _, whole = job("whole", rounds=4, **options)
    stopped, _ = job("stopped", no_answers_from(stopped_in), rounds=4, server=kept, **options)
    assert len(stopped.panics) == 1
    told, folder = job("on", rounds=4, server=kept, **options)
    assert told.panics == []
    assert [n for task, n, _ in told.tasks if task == fedbpt_messages.SEARCH] == list(range(stopped_in, 5))
    expected, found = read_summary(whole), read_summary(folder)
    for key in ("test_accuracy", "dev_accuracy", "best_round", "zero_shot_accuracy", "queries", "example_forwards"):
        assert found[key] == expected[key]
    for key in ("round", "accuracy", "dev_accuracy", "dev_loss", "fitness", "sigma", "site_fitness"):
        assert [r[key] for r in found["rounds"]] == [r[key] for r in expected["rounds"]]
    points = [load_prompt(results / "best_prompt.safetensors").point for results in (whole, folder)]
    assert np.array_equal(*points)
    for name in ("distribution.npz", "rounds/round_0001.npz", "rounds/round_0004.npz"):
        with np.load(whole / name) as arrays, np.load(folder / name) as again:
            assert all(np.array_equal(arrays[key], again[key]) for key in arrays)
    assert {n for tag, _, n in told.scalars if tag == "dev_accuracy"} == {0, 1, 2, 3, 4}  # TensorBoard has all rounds


def test_a_finished_run_can_be_made_longer(job, kept):
    _, whole = job("whole", rounds=3)
    job("short", rounds=2, server=kept)
    told, folder = job("on", rounds=3, server=kept)
    assert [n for task, n, _ in told.tasks if task == fedbpt_messages.SEARCH] == [3]
    assert read_summary(folder)["test_accuracy"] == read_summary(whole)["test_accuracy"]
    told, _ = job("less", rounds=1, server=kept)
    assert "finished round 3, and --num_rounds is 1" in told.panics[0]


@pytest.mark.parametrize(
    ("server", "options", "sentence"),
    [
        ({}, {"intrinsic_dim": 7}, "options, intrinsic_dim is 6 there and 7 here"),
        ({}, {"seed": 5}, "options, seed is 42 there and 5 here"),
        ({"covariance": "full"}, {}, "server, covariance is 'diagonal' there and 'full' here"),
    ],
)
def test_a_run_with_other_settings_is_not_taken_up(job, kept, server, options, sentence):
    job("first", rounds=1, server=kept)
    told, _ = job("second", rounds=2, server={**kept, **server}, **options)
    assert len(told.panics) == 1
    assert sentence in told.panics[0]
    assert [task for task, _, _ in told.tasks] == [messages.SETUP]


def test_a_site_that_goes_on_in_another_number_format_is_named(job, kept, caplog):
    job("first", rounds=1, server=kept, dtype="float32")
    assert "before and computes in" not in caplog.text
    told, folder = job("second", rounds=2, server=kept, dtype="bfloat16")
    assert told.panics == []
    sites = read_summary(folder)["dtypes"]
    assert set(sites.values()) == {"bfloat16"}
    for site in sites:
        assert f"{site} computed in float32 before and computes in bfloat16 now" in caplog.text


def test_a_full_disk_does_not_stop_the_run(job, kept, monkeypatch, caplog):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_run, "save_checkpoint", full)
    told, folder = job(rounds=2, server=kept)
    assert told.panics == []
    assert [r["round"] for r in read_summary(folder)["rounds"]] == [0, 1, 2]
    assert "round 1: no checkpoint could be written" in caplog.text
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize(
    "edit",
    [
        lambda said: said["state"].pop("results"),
        lambda said: said["state"]["results"].update(rounds=[{"round": 0}]),
        lambda said: said["state"].update(record={"round": 1, "elsewhere": "x"}),
        lambda said: said["state"].update(shares=5),
        lambda said: said["state"].update(answered=[["site-1"], ["site-1"], ["site-1"]]),
        lambda said: said["settings"].update(options=[]),
    ],
)
def test_a_checkpoint_that_was_edited_ends_the_job_with_a_sentence(job, kept, edit):
    """Even with a checksum that fits."""
    job("first", rounds=1, server=kept)
    [path] = Path(kept["checkpoint"]).glob("round_*")
    said = json.loads((path / checkpoint.STATE).read_text(encoding="utf-8"))
    del said["sha256"]
    edit(said)
    text = json.dumps({**said, "sha256": checkpoint._digest(path, said)})
    (path / checkpoint.STATE).write_text(text, encoding="utf-8")
    told, _ = job("second", rounds=2, server=kept)
    assert len(told.panics) == 1
    assert "start anew in another folder" in told.panics[0]
