"""Jobs whose clients ask one model: the model server of --share_model, and one beside `nvflare simulator`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from flaretune.methods.fedbpt.artifact import load_prompt
from flaretune.model_server.connection import TOKEN_VARIABLE
from flaretune.tasks.evaluation import peak_memory_mb
from tests.flare.same_job import run_here
from tests.jobs_for_tests import REPOSITORY, command_in, create_from_template, environment_in, read_summary

SMALL = ["--n_prompt_tokens", "3", "--intrinsic_dim", "12", "--k_shot", "12", "--local_iter", "2", "--dtype", "float32"]
SMALL += ["--eval_clients", "all", "--perturb", "1"]


def assert_same_numbers(found, expected) -> None:
    """Of two folders of results."""
    mine, theirs = read_summary(found), read_summary(expected)
    keys = ("test_accuracy", "zero_shot_accuracy", "validation_accuracy", "best_round", "queries", "example_forwards")
    for key in keys:
        assert mine[key] == theirs[key], key
    for key in ("accuracy", "validation_accuracy", "validation_loss", "metrics", "client_metrics", "clients"):
        assert [r[key] for r in mine["rounds"]] == [r[key] for r in theirs["rounds"]], key
    assert np.array_equal(*(load_prompt(folder / "best_prompt.safetensors").point for folder in (found, expected)))


@pytest.mark.slow
def test_a_client_whose_process_is_started_anew_gives_the_same_numbers(folders, tmp_path):
    """As the simulator does at every turn with fewer threads than clients: the client opens model and data again."""
    job = ["fedbpt", ["--model_name", folders["llama"], "--dataset", folders["data"], *SMALL], ["site-1", "site-2"]]
    kept, anew = (run_here(*job, tmp_path / str(a), anew=a, num_rounds=2) for a in (False, True))
    assert_same_numbers(anew, kept)


@pytest.mark.slow
def test_one_model_for_all_clients_gives_the_same_numbers(run, folders, tmp_path):
    flags = ["--model_name", folders["llama"], "--dataset", folders["data"], *SMALL]
    shared = tmp_path / "shared"
    job = [sys.executable, "jobs/fedbpt_job.py", *flags, "--batch_size", 4, "--share_model", 1]
    done = run(*job, "--num_rounds", 2, "--output", shared, "--tracking", "mlflow")
    assert done.returncode == 0, done.stdout + done.stderr
    alone = run_here("fedbpt", [*flags, "--batch_size", "4"], ["site-1", "site-2"], tmp_path / "a", num_rounds=2)
    assert_same_numbers(shared, alone)
    assert read_summary(shared)["memory_mb"] < peak_memory_mb() / 2  # no torch in a client
    assert "answers at http://127.0.0.1" in (shared / "model_server.log").read_text(encoding="utf-8")
    assert_mlflow_has_the_numbers_of(shared)


def assert_mlflow_has_the_numbers_of(folder) -> None:
    from mlflow.tracking import MlflowClient  # here, because `make test-versions` installs no tracker

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("flaretune")
    (tracked,) = client.search_runs([experiment.experiment_id])
    history = {m.step: m.value for m in client.get_metric_history(tracked.info.run_id, "validation_accuracy")}
    assert history == {r["round"]: r["validation_accuracy"] for r in read_summary(folder)["rounds"]}
    assert tracked.info.status == "FINISHED"


@pytest.fixture
def model_server(folders, free_port, monkeypatch):
    """The address of `python -m flaretune serve`, whose token is in the environment."""
    monkeypatch.setenv(TOKEN_VARIABLE, "a-token")
    flags = ["--model_name", folders["llama"], "--dtype", "float32", "--device", "cpu", "--port", str(free_port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "flaretune", "serve", *flags],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    url = f"http://127.0.0.1:{free_port}"
    assert process.stdout.readline() == f"{folders['llama']} answers at {url}, on cpu\n"
    yield url
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    process.stdout.close()


@pytest.mark.slow
def test_the_template_with_five_clients_in_two_threads_on_one_model_server(model_server, folders, tmp_path):
    """Each turn of a client is a new process, which loads no model."""
    flags = ["--model_name", folders["llama"], "--dataset", folders["data"], *SMALL]
    clients = [f"site-{number}" for number in range(1, 6)]
    run, server = command_in(tmp_path), {"num_rounds": 1, "covariance": "diagonal"}
    told = " ".join([*flags, "--seed", "7", "--model_server", model_server])
    create_from_template(run, "fedbpt", tmp_path / "fedbpt", told, min_clients=5, seed=7, **server)
    done = run("nvflare", "simulator", tmp_path / "fedbpt", *["-n", "5", "-t", "2", "-w"], tmp_path / "out")
    assert done.returncode == 0, done.stdout[-3000:]
    results = tmp_path / "out" / "server" / "simulate_job" / "flaretune"
    assert [r["clients"] for r in read_summary(results)["rounds"]] == [clients] * 2
    here = run_here("fedbpt", [*flags, "--seed", "7"], clients, tmp_path / "here", **server)
    assert_same_numbers(results, here)
    assert read_summary(results)["memory_mb"] < peak_memory_mb() / 2


@pytest.mark.slow
def test_neither_server_nor_clients_of_a_model_server_need_torch(model_server, without_models, folders, tmp_path):
    """Nor does the command that submits the job: nothing of it can import what requirements-light.txt leaves out."""
    flags = ["--model_name", folders["llama"], "--dataset", folders["data"], *SMALL]
    environment = {**environment_in(tmp_path), "PYTHONPATH": str(without_models)}
    job = [sys.executable, "jobs/fedbpt_job.py", *flags, "--model_server", model_server, "--n_clients", 2]
    command = [str(word) for word in (*job, "--num_rounds", 2, "--output", tmp_path / "out")]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    here = run_here("fedbpt", flags, ["site-1", "site-2"], tmp_path / "here", num_rounds=2)
    assert_same_numbers(tmp_path / "out", here)


@pytest.mark.slow
def test_a_model_server_that_does_not_start_is_one_clear_sentence(run, folders, tmp_path):
    command = [sys.executable, "jobs/fedbpt_job.py", "--dataset", folders["data"], *SMALL, "--n_clients", 1]
    done = run(*command, "--output", tmp_path / "out", "--share_model", 1, "--model_name", "/nowhere")
    assert done.returncode == 1
    assert "did not start: --model_name /nowhere: there is no such" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
