"""Runs that are killed in real NVFlare processes, and are resumed."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from flaretune.methods.fedbpt.artifact import load_prompt
from flaretune.methods.lpfl.artifact import load_adapter
from tests.flare.same_job import run_here
from tests.jobs_for_tests import REPOSITORY, read_summary

pytestmark = pytest.mark.slow

SMALL = ["--k_shot", "12", "--dtype", "float32", "--eval_clients", "all"]
METHODS = {
    "fedbpt": ["--n_prompt_tokens", "3", "--intrinsic_dim", "12", "--local_iter", "2"],
    "lpfl": ["--unlabelled", "48", "--lora_rank", "2", "--local_steps", "2"],
}


def kill_after_round(command, round_number, environment) -> None:
    """Start a job and kill all its processes once it has told of a round."""
    process = psutil.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if f"round {round_number}/" in line:
            break
    else:
        raise AssertionError("".join(said))
    family = [*process.children(recursive=True), process]
    for member in family:
        member.send_signal(signal.SIGKILL)
    assert not psutil.wait_procs(family, timeout=30)[1]
    process.stdout.close()


@pytest.mark.parametrize("method", ["fedbpt", "lpfl"])
def test_a_killed_job_is_resumed_with_the_numbers_of_one_that_was_not(run, environment, folders, tmp_path, method):
    flags = ["--dataset", folders["data"], "--model_name", folders["roberta"], *SMALL, *METHODS[method]]
    server = {"covariance": "diagonal"} if method == "fedbpt" else {}
    command = [sys.executable, f"jobs/{method}_job.py", *flags, "--n_clients", "2", "--num_rounds", "5"]
    command += [word for name, value in server.items() for word in (f"--{name}", value)]
    checkpoint = ["--checkpoint", str(tmp_path / "checkpoint"), "--output", str(tmp_path / "run")]
    kill_after_round([*command, *checkpoint], 2, environment)
    assert not (tmp_path / "run" / "summary.json").exists()
    names = [path.name.removeprefix("round_") for path in (tmp_path / "checkpoint").glob("round_*")]
    newest = max(int(name) for name in names if name.isdigit())  # others are half written
    assert newest >= 2

    on = run(*command, *checkpoint)
    assert on.returncode == 0, on.stdout + on.stderr
    assert f"going on after round {newest} of the run in" in on.stdout
    whole = run_here(method, flags, ["site-1", "site-2"], tmp_path / "here", num_rounds=5, **server)
    found, expected = read_summary(tmp_path / "run"), read_summary(whole)
    for key in ("test_accuracy", "validation_accuracy", "best_round", "zero_shot_accuracy"):
        assert found[key] == expected[key]
    for key in ("round", "accuracy", "validation_accuracy", "validation_loss", "metrics", "client_metrics"):
        assert [r[key] for r in found["rounds"]] == [r[key] for r in expected["rounds"]]
    if method == "fedbpt":
        assert np.array_equal(*(load_prompt(f / "best_prompt.safetensors").point for f in (tmp_path / "run", whole)))
    else:
        arrays, again = (load_adapter(folder / "last_adapter").arrays for folder in (tmp_path / "run", whole))
        assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
