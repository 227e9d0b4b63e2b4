"""Jobs in real NVFlare processes: the template, the recipe, mistakes at clients."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flaretune.methods.fedbpt.artifact import load_prompt
from tests.jobs_for_tests import REPOSITORY, create_from_template, read_summary

pytestmark = pytest.mark.slow

SMALL = ["--n_prompt_tokens", "3", "--intrinsic_dim", "12", "--k_shot", "12", "--local_iter", "2", "--dtype", "float32"]


def test_published_command_line_with_other_numbers_of_clients_and_rounds(run, folders, tmp_path):
    """As published, but for a small model and data set in their places, fewer texts, three clients, and two rounds."""
    app_config = (
        "--task_name sst2 --n_prompt_tokens 50 --intrinsic_dim 500 --k_shot 30 --device auto --seed 1234 "
        "--loss_type ce --cat_or_add add --local_iter 8 --num_users 10 --iid 1 --local_popsize 5 --perturb 1 "
        f"--model_name {folders['roberta']} --eval_clients site-1 --llama_causal 1 --dataset {folders['data']}"
    )
    create_from_template(run, "fedbpt", tmp_path / "fedbpt", app_config, min_clients=10, num_rounds=2, seed=1234)
    done = run("nvflare", "simulator", tmp_path / "fedbpt", *["-n", "3", "-t", "3", "-w"], tmp_path / "out")
    assert done.returncode == 0, done.stdout[-3000:]
    results = tmp_path / "out" / "server" / "simulate_job" / "flaretune"
    summary = read_summary(results)
    assert [r["round"] for r in summary["rounds"]] == [0, 1, 2]
    assert all(r["clients"] == ["site-1", "site-2", "site-3"] for r in summary["rounds"])
    assert summary["queries"] == 2 * 3 * (8 * 5 + 1)
    # every candidate on the site's texts and on the perturbed ones: 60 texts over the three sites
    assert summary["example_forwards"] == 2 * 2 * (8 * 5 + 1) * 60
    assert 4_000 < summary["bytes_down_per_client_round"] < 10_000
    assert 4_000 < summary["bytes_up_per_client_round"] < 10_000
    config = json.loads((results / "config.json").read_text(encoding="utf-8"))
    server = config["server"]
    assert (server["min_clients"], server["num_rounds"], server["covariance"]) == (10, 2, "diagonal")
    assert config["options"]["perturb"] == 1
    prompt = load_prompt(results / "best_prompt.safetensors")
    assert prompt.point.shape == (500,)
    assert (
        "WARNING flaretune.client: --num_users has no effect: the data is shared out over the clients that the job has"
        in done.stdout
    )
    assert "--llama_causal has no effect" in done.stdout
    assert done.stdout.count("--seed has no effect: the server takes the clients' seed") == 1
    assert "min_clients 10, but the job has 3 clients" in done.stdout


def test_recipe_with_a_causal_model_and_a_file_at_each_client(run, folders, tmp_path):
    """The last client has too few rows. Paths are relative to where the command is given, not to where they start."""
    rows = (Path(folders["data"]) / "train.csv").read_text(encoding="utf-8").splitlines()
    clients = tmp_path / "clients.toml"
    tables = []
    for i, (name, n_rows) in enumerate([("hospital-a", 100), ("hospital-b", 100), ("hospital-c", 10)]):
        own = tmp_path / f"{name}.csv"
        own.write_text("\n".join([rows[0], *rows[1 + 100 * i :][:n_rows]]) + "\n", encoding="utf-8")
        tables.append(f'[{name}]\ndata_path = "{os.path.relpath(own, REPOSITORY)}"\n')
    clients.write_text("\n".join(tables), encoding="utf-8")
    output = tmp_path / "out"
    output.mkdir()
    (output / "summary.json").write_text("{}", encoding="utf-8")  # of an earlier run
    model = os.path.relpath(folders["llama"], REPOSITORY)
    done = run(
        *[sys.executable, "jobs/fedbpt_job.py", "--per_client", clients, "--model_name", model, "--output", output],
        *[*SMALL, "--num_rounds", 2, "--eval_clients", "all", "--covariance", "diagonal", "--tracking", "wandb"],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning: hospital-c: --k_shot 12: takes 12 texts" in done.stderr
    assert "2/3 clients: hospital-a, hospital-b" in done.stdout
    summary = read_summary(output)
    assert summary["clients"] == ["hospital-a", "hospital-b"]
    assert summary["rounds"][-1]["client_metrics"]["fitness"].keys() == {"hospital-a", "hospital-b"}
    assert len([line for line in done.stdout.splitlines() if " INFO    round " in line]) == 3  # one each, 0 included
    assert "zero-shot accuracy" in done.stdout
    assert (output / "curve.png").read_bytes().startswith(b"\x89PNG")
    for round_number in (1, 2):
        answers = np.load(output / "rounds" / f"round_{round_number:04d}.npz", allow_pickle=False)
        assert answers["means"].shape == (2, 12)
    events = EventAccumulator(str(next((output / "tb_events").iterdir()))).Reload()
    accuracy = [event.value for event in events.Scalars("accuracy")]
    assert accuracy == pytest.approx([r["accuracy"] for r in summary["rounds"]])
    assert {"fitness/hospital-a", "validation_accuracy/hospital-b", "bytes_up", "sigma", "queries"} <= set(
        events.Tags()["scalars"]
    )
    (tracked,) = (output / "wandb").glob("offline-run-*/run-*.wandb")  # no key is given: to be synchronised later
    assert tracked.stat().st_size > 1000
    said = run(sys.executable, "-m", "flaretune", "predict", "--result", summary["artifact"], "a warm , honest story")
    assert said.returncode == 0, said.stderr
    assert "great" in said.stdout


def test_mistakes_at_the_clients_fail_the_job_with_one_sentence_each(run, folders, tmp_path):
    rows = (Path(folders["data"]) / "train.csv").read_text(encoding="utf-8").splitlines()
    few, clients = tmp_path / "few.csv", tmp_path / "clients.toml"
    few.write_text("\n".join(rows[:11]) + "\n", encoding="utf-8")
    own = [f'[{name}]\ndataset = ""\ndata_path = "{few}"\n' for name in ("a", "b")]
    clients.write_text("".join([*own, '[c]\nmodel_server = "http://127.0.0.1:1"\n']), encoding="utf-8")
    done = run(
        *[sys.executable, "jobs/fedbpt_job.py", "--model_name", folders["roberta"], "--dataset", folders["data"]],
        *["--output", tmp_path / "out", "--per_client", clients, *SMALL],
    )
    assert done.returncode == 1
    assert "a, b: --k_shot 12: takes 12 texts" in done.stderr
    assert "c: --model_server http://127.0.0.1:1 needs the model server's token in" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_clients_that_were_told_different_things_do_not_start(run, folders, tmp_path):
    clients = tmp_path / "clients.toml"
    clients.write_text("[site-1]\nalpha = 1.0\n[site-2]\nalpha = 2.0\n", encoding="utf-8")
    done = run(
        *[sys.executable, "jobs/fedbpt_job.py", "--model_name", folders["roberta"], "--dataset", folders["data"]],
        *["--output", tmp_path / "out", "--per_client", clients, *SMALL],
    )
    assert done.returncode == 1
    assert "the clients do not agree on the options: alpha is 1.0 at site-1 and 2.0 at site-2" in done.stderr
