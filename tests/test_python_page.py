"""docs/how-to/python.md: the block that is marked as executed, run as it stands there with a tiny model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import flaretune
from tests.authoring.tickets import GOOD, WORDS, write_tickets
from tests.jobs_for_tests import REPOSITORY, environment_in, read_summary
from tests.models_for_tests import save_tiny_model

PAGE = REPOSITORY / "docs" / "how-to" / "python.md"
EXECUTED = re.compile(r"^<!-- executed -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MODEL = '"roberta-large"'


def executed() -> str:
    """The marked block."""
    [block] = EXECUTED.findall(PAGE.read_text(encoding="utf-8"))
    return block


def test_a_whole_job_is_a_few_lines_of_the_public_interface():
    lines = [line for line in executed().splitlines() if line.strip()]
    compile("\n".join(lines), str(PAGE), "exec")
    assert len(lines) <= 15
    assert executed().count(MODEL) == 1
    names = set(re.findall(r"\bflaretune\.(\w+)", executed()))
    assert {"Task", "FedBPTConfig", "FedBPTRecipe", "load_classifier"} <= names


@pytest.mark.slow
def test_the_block_runs_a_job_and_predicts(tmp_path):
    write_tickets(tmp_path / "tickets")
    (tmp_path / "tickets.toml").write_text(GOOD, encoding="utf-8")
    model = save_tiny_model("gpt2", tmp_path / "model", words=WORDS)
    environment = {**environment_in(tmp_path), "PYTHONPATH": str(Path(flaretune.__file__).parents[1])}
    (tmp_path / "job.py").write_text(executed().replace(MODEL, repr(str(model))), encoding="utf-8")
    command = [sys.executable, "job.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Is a support ticket urgent?" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("[[")  # probabilities
    summary = read_summary(tmp_path / "runs" / "python" / "tickets" / "server" / "simulate_job" / "flaretune")
    assert [record["round"] for record in summary["rounds"]] == [0, 1, 2]
