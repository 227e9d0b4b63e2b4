"""LP-FL jobs in real NVFlare processes: the template, the recipe, starting from an adapter, every parameter."""

import os
import sys

import numpy as np
import pytest

from flaretune.methods.lpfl.artifact import load_adapter
from tests.jobs_for_tests import REPOSITORY, command_in, create_from_template, read_summary

pytestmark = pytest.mark.slow

SMALL = ["--k_shot", "6", "--unlabelled", "24", "--dtype", "float32", "--lora_rank", "2"]
JOB = [sys.executable, "jobs/lpfl_job.py"]


@pytest.fixture(scope="module")
def model(folders):
    """Flags of the jobs with a causal model."""
    return ["--model_name", folders["llama"], "--dataset", folders["data"], *SMALL, "--eval_clients", "all"]


@pytest.fixture(scope="module")
def first(model, tmp_path_factory):
    """The results of a job of three rounds of two clients, and what it said; with a tracker that does not answer."""
    folder = tmp_path_factory.mktemp("first")
    tracker = ["--tracking", "mlflow=http://127.0.0.1:9"]
    done = command_in(folder)(*JOB, *model, "--num_rounds", 3, "--output", folder / "out", *tracker)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out", done.stdout + done.stderr


def test_template_with_a_masked_model(run, folders, tmp_path):
    options = ["--task_name", "sst2", "--model_name", folders["roberta"], "--dataset", folders["data"]]
    app_config = " ".join([*options, "--k_shot 9 --unlabelled 30 --eval_clients all --seed 5"])
    create_from_template(run, "lpfl", tmp_path / "lpfl", app_config, min_clients=3, num_rounds=3)
    done = run("nvflare", "simulator", tmp_path / "lpfl", *["-n", "3", "-t", "3", "-w"], tmp_path / "out")
    assert done.returncode == 0, done.stdout[-3000:]
    results = tmp_path / "out" / "server" / "simulate_job" / "flaretune"
    summary = read_summary(results)
    metrics = [r["metrics"] for r in summary["rounds"]]
    assert [m.get("labelled", 0) for m in metrics] == [0, 18, 18, 18]
    # a quarter of the ten texts of each client from the second round on: round(2.5) = 3
    assert [m.get("soft_labelled", 0) for m in metrics] == [0, 0, 9, 18]
    assert 0 <= summary["soft_label_agreement"] <= 1
    # two layers, query and value, each with A (8 × 32) and B (32 × 8)
    assert summary["trained_parameters"] == 2 * 2 * 2 * 8 * 32
    assert 2048 * 4 < summary["bytes_up_per_client_round"] < 2048 * 4 + 8000
    assert summary["rounds"][1]["clients"] == ["site-1", "site-2", "site-3"]
    assert load_adapter(results / "best_adapter").result["round"] == summary["best_round"]
    assert load_adapter(results / "last_adapter").result["round"] == 3


def test_recipe_with_a_causal_model_and_a_start_from_its_adapter(run, first, model, tmp_path):
    """The second run starts where the first ended: its round 0 is the first one's last."""
    results, said = first
    assert "warning: server: tracking 'mlflow' cannot" in said
    assert "12 labelled + 6 soft" in said  # a quarter of the twelve texts of each of the two clients
    assert len([line for line in said.splitlines() if " INFO    round " in line]) == 4  # one each, 0 included
    here = os.path.relpath(results / "last_adapter", REPOSITORY)  # the server's process works in another folder
    second = run(*JOB, *model, "--num_rounds", 1, "--output", tmp_path / "second", "--init_adapter", here)
    assert second.returncode == 0, second.stdout + second.stderr
    ended, begun = read_summary(results)["rounds"][-1], read_summary(tmp_path / "second")["rounds"][0]
    assert (begun["accuracy"], begun["validation_loss"]) == (
        ended["accuracy"],
        pytest.approx(ended["validation_loss"], rel=1e-5),
    )
    answered = run(
        *[sys.executable, "-m", "flaretune", "predict", "--result", tmp_path / "second" / "best_adapter"],
        "a warm , honest story",
    )
    assert answered.returncode == 0, answered.stderr
    assert "great" in answered.stdout


def test_every_parameter(run, first, model, tmp_path):
    folders, sent = {"lora": first[0], "full": tmp_path / "full"}, {}
    done = run(*JOB, *model, "--tuning", "full", "--num_rounds", 1, "--output", folders["full"])
    assert done.returncode == 0, done.stdout + done.stderr
    for name, folder in folders.items():
        summary = read_summary(folder)
        sent[name] = summary["trained_parameters"]
        # float32, and names and counters besides; the large arrays of "full" travel as downloads
        names = len(load_adapter(folder / "last_adapter").arrays)
        assert 4 * sent[name] < summary["bytes_up_per_client_round"] < 4 * sent[name] + 8000 + 500 * names
    assert sent["lora"] < sent["full"]
    assert load_adapter(folders["full"] / "last_adapter").adapter_config is None


def test_fewer_threads_than_clients_give_the_same_numbers(run, first, model, tmp_path):
    """The simulator then starts a client's process anew at every turn, which takes its soft labels over."""
    output = tmp_path / "turns"
    done = run(*JOB, *model, "--num_rounds", 3, "--threads", 1, "--output", output)
    assert done.returncode == 0, done.stdout + done.stderr
    for folder in (first[0], output):
        assert read_summary(folder)["rounds"][-1]["metrics"]["soft_labelled"] == 12
    expected, found = (load_adapter(folder / "last_adapter").arrays for folder in (first[0], output))
    for name, values in expected.items():
        np.testing.assert_array_equal(values, found[name])
