"""A run's numbers in MLflow and Weights & Biases, of real NVFlare jobs."""

from __future__ import annotations

import sys

import pytest
from mlflow.tracking import MlflowClient

from flaretune.errors import UserError
from flaretune.flare.tracking import check_tracker
from tests.jobs_for_tests import read_summary

SMALL = "--n_clients 2 --k_shot 12 --n_prompt_tokens 3 --intrinsic_dim 12 --local_iter 2 --num_rounds 2 --dtype float32"


def test_a_tracker_that_does_not_exist_or_is_not_installed_is_named(monkeypatch):
    with pytest.raises(UserError, match="'neptune': there are mlflow, wandb"):
        check_tracker("neptune")
    monkeypatch.setattr("flaretune.flare.tracking.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install wandb"):
        check_tracker("wandb")


@pytest.fixture
def tracked(run, folders, tmp_path):
    """Run a small job with a tracker, and give the folder of its results."""

    def tracked(tracker, *options, says=""):
        command = [
            sys.executable,
            "jobs/fedbpt_job.py",
            "--dataset",
            folders["data"],
            "--model_name",
            folders["roberta"],
        ]
        ended = run(*command, *SMALL.split(), "--tracking", tracker, *options, "--output", tmp_path / "run")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert says in ended.stderr
        return tmp_path / "run"

    return tracked


@pytest.mark.slow
def test_mlflow_has_the_numbers_of_every_round(tracked):
    folder = tracked("mlflow")
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("flaretune")
    (run,) = client.search_runs([experiment.experiment_id])
    history = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "dev_accuracy")}
    assert history == {r["round"]: r["dev_accuracy"] for r in read_summary(folder)["rounds"]}
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_wandb_keeps_a_run_to_be_synchronised_where_no_key_is_given(tracked):
    folder = tracked("wandb")
    (file,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    assert file.stat().st_size > 1000


@pytest.mark.slow
def test_a_run_goes_on_without_a_tracker_that_does_not_answer_and_says_so(tracked):
    folder = tracked("mlflow", "--tracking_uri", "http://127.0.0.1:9", says="warning: server: tracking 'mlflow' cannot")
    assert len(read_summary(folder)["rounds"]) == 3
