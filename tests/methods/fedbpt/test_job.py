"""A whole job of FedBPT in this process: what it leaves of its rounds, and how it resumes."""

import json
from pathlib import Path

import numpy as np
import pytest

from flaretune.engine import checkpoint, codec, resume
from flaretune.engine.records import scalars
from flaretune.methods.fedbpt.artifact import load_prompt
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.registry import find_method
from tests.engine.in_process import assert_same_rounds, no_replies_from, run_job
from tests.learnable import write_reviews

CLIENTS = ["site-1", "site-2", "site-3"]


@pytest.fixture(scope="module")
def folders(roberta, tmp_path_factory):
    data = write_reviews(tmp_path_factory.mktemp("fedbpt_job"), n_train=90, n_test=30)
    return {"model_name": str(roberta), "dataset": str(data)}


@pytest.fixture
def job(folders, tmp_path):
    """Run a job of two rounds in this process; returns what was said, and the folder of its results."""

    def run(name="results", change=lambda _client, _task, _round, reply: reply, rounds=2, server=None, **options):
        small = {"n_prompt_tokens": 3, "intrinsic_dim": 6, "k_shot": 9, "local_iter": 2, "dtype": "float32"}
        config = FedBPTConfig(**{**folders, **small, "eval_clients": "all", **options})
        server = {"num_rounds": rounds, "covariance": "diagonal", **(server or {})}
        configs = dict.fromkeys(CLIENTS, config)
        return run_job(find_method("fedbpt"), configs, tmp_path / name, change=change, **server), tmp_path / name

    return run


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_the_server_tells_how_long_a_vector_may_be(job):
    told, _ = job(max_norm="1:0.5")
    sent = [m for task, _, m in told.tasks if task == codec.FIT]
    assert [m.fields["numbers"]["norm_limit"] for m in sent] == [
        2.0,
        2.0,
    ]  # 1 more while the mean is shorter than 0.5: once
    first, second = (np.linalg.norm(m.arrays["mean"]) for m in sent)
    assert first < 0.5 < second


def test_a_job_keeps_its_rounds_and_the_mean_of_the_best_one(job):
    told, folder = job()
    assert told.failure == ""
    assert [(task, n) for task, n, _ in told.tasks] == [
        (codec.INITIALIZE, 0),
        (codec.FIT, 1),
        (codec.FIT, 2),
        (codec.EVALUATE, 2),
    ]
    evaluated = [codec.read_fit_request(m).evaluate for _, _, m in told.tasks[1:3]]
    assert evaluated == [False, True]  # the start was evaluated when the clients were initialized
    summary = read_summary(folder)
    assert (summary["method"], summary["artifact_kind"]) == ("FedBPT", "prompt")
    assert [r["round"] for r in summary["rounds"]] == [0, 1, 2]
    assert summary["queries"] == 2 * 3 * (2 * 5 + 1)
    # float32: d numbers, their variances and one step size to a client, and as much as a client sends back
    assert [r["bytes_down"] for r in summary["rounds"]] == [0.0, *[4 * (6 + 6 + 1)] * 2]
    counts = 2 * 8 + 2 * 8 + 2 * 8  # validation, its loss, test
    assert [r["bytes_up"] for r in summary["rounds"]] == [counts + 2 * 8, 4 * 6 + 2 * 8, 4 * 6 + 2 * 8 + counts]
    tags = set(scalars(told.records[1]))
    assert {"fitness", "sigma", "fitness/site-2", "validation_accuracy/site-3", "memory_mb"} <= tags
    # the mean after round r is what the task after it brings to the clients
    means = [m.arrays["mean"] for _, _, m in told.tasks[1:]]
    prompt = load_prompt(folder / summary["artifact"])
    assert prompt.result["round"] == summary["best_round"]
    np.testing.assert_allclose(prompt.point, means[summary["best_round"]], rtol=1e-6, atol=1e-7)
    for round_number in (1, 2):
        results = np.load(folder / "rounds" / f"round_{round_number:04d}.npz", allow_pickle=False)
        assert results["clients"].tolist() == CLIENTS
        sent = {c: m for c, task, n, m in told.replies if (task, n) == (codec.FIT, round_number)}
        np.testing.assert_array_equal(results["means"], [sent[client].arrays["mean"] for client in CLIENTS])
        np.testing.assert_array_equal(results["fitness"], [sent[client].arrays["fitness"][0] for client in CLIENTS])
    kept = np.load(folder / "distribution.npz", allow_pickle=False)
    np.testing.assert_allclose(kept["mean"], means[2], rtol=1e-6, atol=1e-7)


def test_equal_seeds_give_equal_runs_and_others_do_not(job):
    found = []
    for i, seed in enumerate((7, 7, 8)):
        _, folder = job(str(i), seed=seed)
        found.append(np.load(folder / "distribution.npz", allow_pickle=False)["mean"])
    assert found[0].tobytes() == found[1].tobytes()
    assert not np.array_equal(found[0], found[2])


def test_what_cannot_be_read_is_excluded(job, caplog):
    def damage(client, task, _round, reply):
        if task == codec.FIT and client == "site-2":
            reply.arrays["fitness"] = np.array([np.nan])
        return reply

    told, folder = job(change=damage, server={"min_clients": 2})
    assert told.failure == ""
    assert [r["clients"] for r in read_summary(folder)["rounds"]] == [
        CLIENTS,
        ["site-1", "site-3"],
        ["site-1", "site-3"],
    ]
    assert "the fit reply of site-2 is not used: array 'fitness' holds values that are not finite" in caplog.text
    told, folder = job("needed", change=damage, server={"min_clients": 3})
    assert told.failure == (
        "round 1: 2 of 3 clients gave a usable fit reply and 3 are needed; without site-2: array 'fitness' "
        "holds values that are not finite"
    )


# ---- resuming ----


@pytest.fixture
def checkpoints(tmp_path):
    return {"checkpoint": str(tmp_path / "checkpoints")}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"max_norm": "1:20"}, {"perturb": 1}])
def test_a_run_goes_on_as_if_it_had_not_been_stopped(job, tmp_path, options):
    _, whole = job("whole", rounds=4, **options)
    for stopped_in in (1, 3):
        checkpoints = {"checkpoint": str(tmp_path / f"checkpoints {stopped_in}")}
        stopped, _ = job(f"stopped {stopped_in}", no_replies_from(stopped_in), rounds=4, server=checkpoints, **options)
        assert stopped.failure
        told, folder = job(f"on {stopped_in}", rounds=4, server=checkpoints, **options)
        assert told.failure == ""
        assert [n for task, n, _ in told.tasks if task == codec.FIT] == list(range(stopped_in, 5))
        assert_same_rounds(folder, whole, "queries", "example_forwards")
        points = [load_prompt(results / "best_prompt.safetensors").point for results in (whole, folder)]
        assert np.array_equal(*points)
        for name in ("distribution.npz", "rounds/round_0001.npz", "rounds/round_0004.npz"):
            with np.load(whole / name) as arrays, np.load(folder / name) as again:
                assert all(np.array_equal(arrays[key], again[key]) for key in arrays)
        assert [record.round for record in told.records] == [0, 1, 2, 3, 4]  # TensorBoard has all rounds


def test_a_finished_run_can_be_made_longer(job, checkpoints):
    _, whole = job("whole", rounds=3)
    job("short", rounds=2, server=checkpoints)
    told, folder = job("on", rounds=3, server=checkpoints)
    assert [n for task, n, _ in told.tasks if task == codec.FIT] == [3]
    assert read_summary(folder)["test_accuracy"] == read_summary(whole)["test_accuracy"]
    told, _ = job("less", rounds=1, server=checkpoints)
    assert "finished round 3, and --num_rounds is 1" in told.failure


@pytest.mark.slow
def test_a_run_with_other_settings_is_not_taken_up(job, checkpoints):
    job("first", rounds=1, server=checkpoints)
    for server, options, sentence in (
        ({}, {"intrinsic_dim": 7}, "options, intrinsic_dim is 6 there and 7 here"),
        ({}, {"seed": 5}, "options, seed is 42 there and 5 here"),
        ({"covariance": "full"}, {}, "server, covariance is 'diagonal' there and 'full' here"),
    ):
        told, _ = job("second", rounds=2, server={**checkpoints, **server}, **options)
        assert sentence in told.failure
        assert [task for task, _, _ in told.tasks] == [codec.INITIALIZE]


def test_a_client_that_resumes_in_another_number_format_is_named(job, checkpoints, caplog):
    job("first", rounds=1, server=checkpoints, dtype="float32")
    assert "before and computes in" not in caplog.text
    told, folder = job("second", rounds=2, server=checkpoints, dtype="bfloat16")
    assert told.failure == ""
    clients = read_summary(folder)["dtypes"]
    assert set(clients.values()) == {"bfloat16"}
    for client in clients:
        assert f"{client} computed in float32 before and computes in bfloat16 now" in caplog.text


def test_a_full_disk_does_not_stop_the_run(job, checkpoints, monkeypatch, caplog):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resume, "save_checkpoint", full)
    told, folder = job(rounds=2, server=checkpoints)
    assert told.failure == ""
    assert [r["round"] for r in read_summary(folder)["rounds"]] == [0, 1, 2]
    assert "round 1: no checkpoint could be written" in caplog.text
    assert "No space left on device" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    "edit",
    [
        lambda said: said["state"].pop("results"),
        lambda said: said["state"]["results"].update(rounds=[{"round": 0}]),
        lambda said: said["state"].update(record={"round": 1, "elsewhere": "x"}),
        lambda said: said["state"].update(shares=5),
        lambda said: said["state"].update(method={"clients": [["site-1"], ["site-1"], ["site-1"]]}),
        lambda said: said["settings"].update(options=[]),
    ],
)
def test_a_checkpoint_that_was_edited_ends_the_job_with_a_sentence(job, checkpoints, edit):
    """Even with a checksum that fits."""
    job("first", rounds=1, server=checkpoints)
    [path] = Path(checkpoints["checkpoint"]).glob("round_*")
    said = json.loads((path / checkpoint.STATE).read_text(encoding="utf-8"))
    del said["sha256"]
    edit(said)
    text = json.dumps({**said, "sha256": checkpoint._digest(path, said)})
    (path / checkpoint.STATE).write_text(text, encoding="utf-8")
    told, _ = job("second", rounds=2, server=checkpoints)
    assert "start anew in another folder" in told.failure
