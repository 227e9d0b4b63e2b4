"""A job in NVFlare's simulator that is told to stop."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import processes
import pytest

from flaretune.methods.fedbpt.artifact import load_prompt
from tests.jobs_for_tests import REPOSITORY, read_summary

pytestmark = pytest.mark.slow


def test_a_job_that_is_told_to_stop_leaves_nobody_behind_and_its_finished_rounds(environment, folders, tmp_path):
    """With the model server of --share_model, and with processes of clients that have left session and parent."""
    output, said = tmp_path / "out", tmp_path / "said"
    flags = ["--model_name", folders["llama"], "--dataset", folders["data"], "--dtype", "float32", "--share_model", "1"]
    flags += ["--n_prompt_tokens", "3", "--intrinsic_dim", "12", "--k_shot", "12", "--local_iter", "2"]
    flags += ["--num_rounds", "1000", "--output", str(output)]
    marked = {**environment, processes.MARK: str(tmp_path)}
    with said.open("wb") as stdout:
        job = subprocess.Popen(
            [sys.executable, "jobs/fedbpt_job.py", *flags],
            cwd=REPOSITORY,
            env=marked,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
    try:
        while "round    2/1000" not in said.read_text(encoding="utf-8"):
            assert job.poll() is None
            time.sleep(0.1)
        commands = [" ".join(process.cmdline()) for process in processes.members(tmp_path)]
        for part in ("fedbpt_train.py", "simulator_worker", "simulator.simulator", "flaretune serve"):
            assert any(part in command for command in commands), part
        job.send_signal(signal.SIGTERM)
        told = job.communicate(timeout=60)[1]
        assert job.returncode == 128 + signal.SIGTERM
        processes.wait_for_end(tmp_path, 5)
    finally:
        processes.end_all(tmp_path)
    summary = read_summary(output)
    last = summary["rounds"][-1]["round"]
    assert last >= 2
    assert [r["clients"] for r in summary["rounds"]] == [["site-1", "site-2"]] * (last + 1)
    assert told == (
        f"error: stopped by SIGTERM after round {last}, whose results are in {output}; with --checkpoint FOLDER it "
        "could be resumed\n"
    )
    assert load_prompt(summary["artifact"]).result["round"] >= summary["best_round"]
    assert (output / "curve.png").is_file()
