"""LP-FL jobs in real NVFlare processes: the template, the recipe, clients that fail, starting from an adapter."""

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


def test_every_parameter_and_frozen_a(run, first, model, tmp_path):
    folders, sent = {"lora": first[0], "full": tmp_path / "full", "frozen": tmp_path / "frozen"}, {}
    for name, flags in {"full": ["--tuning", "full"], "frozen": ["--freeze_a", 1]}.items():
        done = run(*JOB, *model, *flags, "--num_rounds", 1, "--output", folders[name])
        assert done.returncode == 0, done.stdout + done.stderr
    for name, folder in folders.items():
        summary = read_summary(folder)
        sent[name] = summary["trained_parameters"]
        # float32, and names and counters besides; the large arrays of "full" travel as downloads
        names = len(load_adapter(folder / "last_adapter").arrays)
        assert 4 * sent[name] < summary["bytes_up_per_client_round"] < 4 * sent[name] + 8000 + 500 * names
    assert sent["frozen"] < sent["lora"] < sent["full"]
    whole, start = (load_adapter(folders[name] / "last_adapter").arrays for name in ("frozen", "lora"))
    assert whole.keys() == start.keys()  # A too, which did not travel
    assert sum(values.size for name, values in whole.items() if "lora_B" in name) == sent["frozen"]
    assert load_adapter(folders["full"] / "last_adapter").adapter_config is None


FAULTS = """
import os, signal
import numpy as np
import nvflare.client as flare
from flaretune.flare.client_script import main
from flaretune.methods.lpfl.client import LPFLClient

def faulty(self, request, honest=LPFLClient.fit):
    result = honest(self, request)
    name = next(n for n in result.arrays if "lora_B" in n)
    if flare.get_site_name() == "site-2":
        result.arrays[name] = np.full_like(result.arrays[name], np.nan)
    elif flare.get_site_name() == "site-3":
        result.arrays[name] = result.arrays[name][:1]
    elif flare.get_site_name() == "site-4" and request.round == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

LPFLClient.fit = faulty
main("lpfl")
"""


def test_goes_on_without_clients_that_reply_badly_or_die(run, folders, tmp_path):
    export = tmp_path / "export"
    exported = run(
        *[*JOB, "--export", "--export-dir", export, "--model_name", folders["gpt2"], "--dataset", folders["data"]],
        *[*SMALL, "--num_rounds", 2],
    )
    assert exported.returncode == 0, exported.stderr
    job = export / "lpfl"
    (job / "app" / "custom" / "lpfl_train.py").write_text(FAULTS, encoding="utf-8")
    done = run("nvflare", "simulator", job, *["-n", "4", "-t", "4", "-w"], tmp_path / "out")
    assert done.returncode == 0, done.stdout[-3000:]
    results = tmp_path / "out" / "server" / "simulate_job" / "flaretune"
    assert [r["clients"] for r in read_summary(results)["rounds"][1:]] == [["site-1", "site-4"], ["site-1"]]
    assert "round 1: the fit reply of site-2 is not used: array" in done.stdout
    assert "holds values that are not finite" in done.stdout
    assert "round 1: the fit reply of site-3 is not used: array" in done.stdout
    assert all(np.isfinite(values).all() for values in load_adapter(results / "last_adapter").arrays.values())


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


def test_mistake_at_the_clients_fails_the_job_with_one_sentence(run, folders, tmp_path):
    """Here one that shows in the first round; test_jobs.py has those of the start."""
    done = run(
        *[*JOB, "--model_name", folders["llama"], "--dataset", folders["data"], "--output", tmp_path / "out"],
        *[*SMALL, "--learning_rate", "1e35", "--lora_alpha", "1e6", "--num_rounds", 2],
    )
    assert done.returncode == 1
    assert "a lower --learning_rate may help" in done.stderr
    assert "Traceback" not in done.stderr
