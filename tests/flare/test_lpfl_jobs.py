"""LP-FL jobs in real NVFlare processes: the template, the recipe, sites that fail, going on from an adapter."""

import json
import os
import sys

import numpy as np
import pytest

from flaretune.lpfl.artifact import load_adapter
from tests.jobs_for_tests import REPOSITORY, create_from_template, read_summary

pytestmark = pytest.mark.slow

SMALL = ["--k_shot", "6", "--unlabelled", "24", "--dtype", "float32", "--lora_rank", "2"]
JOB = [sys.executable, "jobs/lpfl_job.py"]


def test_template_with_a_masked_model(run, folders, tmp_path):
    options = ["--task_name", "sst2", "--model_name", folders["roberta"], "--dataset", folders["data"]]
    app_config = " ".join([*options, "--k_shot 9 --unlabelled 30 --eval_clients all --seed 5"])
    create_from_template(run, "lpfl", tmp_path / "lpfl", app_config, min_clients=3, num_rounds=3)
    done = run("nvflare", "simulator", tmp_path / "lpfl", *["-n", "3", "-t", "3", "-w"], tmp_path / "out")
    assert done.returncode == 0, done.stdout[-3000:]
    results = tmp_path / "out" / "server" / "simulate_job" / "flaretune"
    summary = read_summary(results)
    assert [r["labelled"] for r in summary["rounds"]] == [0, 18, 18, 18]
    # a quarter of the ten texts of each site from the second round on: round(2.5) = 3
    assert [r["soft_labelled"] for r in summary["rounds"]] == [0, 0, 9, 18]
    assert 0 <= summary["soft_label_agreement"] <= 1
    # two layers, query and value, each with A (8 × 32) and B (32 × 8)
    assert summary["trained_parameters"] == 2 * 2 * 2 * 8 * 32
    assert 2048 * 4 < summary["bytes_up_per_client_round"] < 2048 * 4 + 8000
    assert summary["rounds"][1]["sites"] == ["site-1", "site-2", "site-3"]
    assert load_adapter(results / "best_adapter").result["round"] == summary["best_round"]
    assert load_adapter(results / "last_adapter").result["round"] == 3


def test_recipe_with_a_causal_model_and_going_on_from_its_adapter(run, folders, tmp_path):
    """The second run starts where the first ended: its round 0 is the first one's last."""
    model = ["--model_name", folders["llama"], "--dataset", folders["data"], *SMALL, "--eval_clients", "all"]
    first = run(*JOB, *model, "--num_rounds", 2, "--output", tmp_path / "first")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "12 labelled + 6 soft" in first.stdout  # a quarter of the twelve texts of each of the two sites
    assert len([line for line in first.stdout.splitlines() if " INFO    round " in line]) == 3  # one each, 0 included
    last = tmp_path / "first" / "last_adapter"
    here = os.path.relpath(last, REPOSITORY)  # the server's process works in another folder
    second = run(*JOB, *model, "--num_rounds", 1, "--output", tmp_path / "second", "--init_adapter", here)
    assert second.returncode == 0, second.stdout + second.stderr
    ended, begun = read_summary(tmp_path / "first")["rounds"][-1], read_summary(tmp_path / "second")["rounds"][0]
    assert (begun["accuracy"], begun["dev_loss"]) == (ended["accuracy"], pytest.approx(ended["dev_loss"], rel=1e-5))
    said = run(
        *[sys.executable, "-m", "flaretune", "predict", "--adapter", tmp_path / "second" / "best_adapter"],
        "a warm , honest story",
    )
    assert said.returncode == 0, said.stderr
    assert "great" in said.stdout


def test_every_parameter_and_frozen_a(run, folders, tmp_path):
    model = ["--model_name", folders["gpt2"], "--dataset", folders["data"], *SMALL, "--num_rounds", 1]
    sent = {}
    for name, flags in {"full": ["--tuning", "full"], "lora": [], "frozen": ["--freeze_a", 1]}.items():
        done = run(*JOB, *model, *flags, "--output", tmp_path / name)
        assert done.returncode == 0, done.stdout + done.stderr
        summary = read_summary(tmp_path / name)
        sent[name] = summary["trained_parameters"]
        # float32, and names and counters besides; the large arrays of "full" travel as downloads
        names = len(load_adapter(tmp_path / name / "last_adapter").arrays)
        assert 4 * sent[name] < summary["bytes_up_per_client_round"] < 4 * sent[name] + 8000 + 500 * names
    assert sent["frozen"] < sent["lora"] < sent["full"]
    whole = load_adapter(tmp_path / "frozen" / "last_adapter").arrays
    start = load_adapter(tmp_path / "lora" / "last_adapter").arrays
    assert whole.keys() == start.keys()  # A too, which did not travel
    assert sum(values.size for name, values in whole.items() if "lora_B" in name) == sent["frozen"]
    assert load_adapter(tmp_path / "full" / "last_adapter").adapter_config is None


FAULTS = """
import os, signal
import numpy as np
from flaretune.flare import lpfl_client, lpfl_messages

def faulty(answer, honest=lpfl_messages.train_answer):
    import nvflare.client as flare
    model, site = honest(answer), flare.get_site_name()
    name = next(n for n in model.params if "lora_B" in n)
    if site == "site-2":
        model.params[name] = np.full_like(model.params[name], np.nan)
    elif site == "site-3":
        model.params[name] = model.params[name][:1]
    elif site == "site-4" and flare.receive().current_round == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return model

lpfl_messages.train_answer = faulty
lpfl_client.main()
"""


def test_goes_on_without_sites_that_answer_badly_or_die(run, folders, tmp_path):
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
    assert [r["sites"] for r in read_summary(results)["rounds"][1:]] == [["site-1", "site-4"], ["site-1"]]
    assert "round 1: the train answer of site-2 is left out: array" in done.stdout
    assert "holds values that are not finite" in done.stdout
    assert "round 1: the train answer of site-3 is left out: array" in done.stdout
    assert all(np.isfinite(values).all() for values in load_adapter(results / "last_adapter").arrays.values())


def test_fewer_threads_than_clients_give_the_same_numbers(run, folders, tmp_path):
    """The simulator then starts a site's process anew at every turn, which takes its soft labels over."""
    found = []
    for threads in (2, 1):
        output = tmp_path / f"threads-{threads}"
        done = run(
            *[*JOB, "--n_clients", 2, "--threads", threads, "--output", output, "--model_name", folders["roberta"]],
            *["--dataset", folders["data"], *SMALL, "--num_rounds", 3],
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found.append(load_adapter(output / "last_adapter").arrays)
        assert read_summary(output)["rounds"][-1]["soft_labelled"] == 12
    for name, values in found[0].items():
        np.testing.assert_array_equal(values, found[1][name])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--target_modules", "q_proj,nothing"], "--target_modules nothing: no layer of this model has that name"),
        (["--learning_rate", "1e35", "--lora_alpha", "1e6"], "a lower --learning_rate may help"),
    ],
)
def test_mistake_at_the_sites_fails_the_job_with_one_sentence(run, folders, tmp_path, flags, sentence):
    done = run(
        *[*JOB, "--model_name", folders["llama"], "--dataset", folders["data"], "--output", tmp_path / "out"],
        *[*SMALL, *flags, "--num_rounds", 2],
    )
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_adapter_of_another_shape_is_refused(run, folders, tmp_path):
    model = ["--model_name", folders["llama"], "--dataset", folders["data"], *SMALL, "--num_rounds", 1]
    assert run(*JOB, *model, "--output", tmp_path / "first").returncode == 0
    other = run(
        *[*JOB, *model, "--lora_rank", 4, "--output", tmp_path / "second"],
        *["--init_adapter", tmp_path / "first" / "last_adapter"],
    )
    assert other.returncode == 1
    assert "does not fit this job" in other.stderr
    assert json.loads((tmp_path / "first" / "last_adapter" / "adapter_config.json").read_text())["r"] == 2
