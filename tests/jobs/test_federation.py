"""The guide docs/operations/federation.md, walked through on real NVFlare processes over mutual TLS, with a tiny model.

`make federation` does the same with the demo's model.
"""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import guide
import processes
import pytest
import run_local

from tests.jobs_for_tests import REPOSITORY, environment_in
from tests.learnable import write_reviews
from tests.models_for_tests import save_tiny_model

pytestmark = pytest.mark.slow
CLIENTS = list(run_local.HOSPITALS)


@pytest.fixture(scope="module")
def assets(tmp_path_factory) -> list[str]:
    """Flags that name a tiny model and texts that can be learned."""
    folder = tmp_path_factory.mktemp("assets")
    model = save_tiny_model("llama", folder / "model")
    data = write_reviews(folder / "data", n_train=3 * run_local.ROWS, n_test=2) / "train.csv"
    return ["--model_name", str(model), "--data", str(data)]


@pytest.fixture
def walk(assets, tmp_path):
    """Start run_local.py in a folder; whatever happens, nothing is left of it."""
    output = tmp_path / "federation"

    def start(*flags: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-u", "jobs/federation/run_local.py", "--output", str(output), *assets, *flags],
            cwd=REPOSITORY,
            env=environment_in(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    yield start
    processes.end_all(output)


def results(output: Path, name: str) -> list[Path]:
    """Folders of a job's downloaded results, oldest first."""
    found = output.glob(f"administrator/{name}/*/workspace/flaretune")
    return sorted(found, key=lambda folder: folder.stat().st_mtime)


def said_by(output: Path, site: str) -> str:
    return "".join(file.read_text(encoding="utf-8") for file in output.glob(f"{site}/{site}/*/log.txt"))


def is_watched(output: Path, job: str) -> bool:
    """Whether `watch` has seen a job run, be it that the job tells of its clients already or that it does not yet."""
    log = output / run_local.LOG
    line = rf"^{job} \(.*(RUNNING| of round )"
    return log.is_file() and re.search(line, log.read_text(encoding="utf-8"), re.M) is not None


def test_with_flaretune_installed(walk, tmp_path):
    """All three jobs, and one of them made longer."""
    running = walk("--code", "installed")
    said, complaints = running.communicate(timeout=900)
    assert running.returncode == 0, complaints
    output = tmp_path / "federation"
    first, longer = (json.loads((f / "summary.json").read_text(encoding="utf-8")) for f in results(output, "fedbpt"))
    [lpfl] = (json.loads((f / "summary.json").read_text(encoding="utf-8")) for f in results(output, "lpfl"))
    [head] = (json.loads((f / "summary.json").read_text(encoding="utf-8")) for f in results(output, "verbalizer"))
    assert [summary["clients"] for summary in (head, first, longer, lpfl)] == [CLIENTS] * 4
    assert head["test_accuracy"] > head["zero_shot_accuracy"]
    assert [r["round"] for r in longer["rounds"]] == list(range(7))
    for name in ("round", "accuracy", "validation_accuracy", "client_metrics", "bytes_up"):  # gone on, not done again
        assert [r[name] for r in longer["rounds"]][:5] == [r[name] for r in first["rounds"]]
    assert said.count("accuracy ") == 4

    log = (output / run_local.LOG).read_text(encoding="utf-8")
    for block in (block for block in guide.read_blocks(run_local.GUIDE) if block.runs("installed")):
        names = [name for word in block.parties for name in run_local.NAMES[word]]
        assert all(f"\n# {name}: {block.section} (line {block.line})\n{block.commands}\n" in log for name in names)
    for job in results(output, "fedbpt") + results(output, "lpfl"):
        sent = {file.name for file in (job.parents[1] / "job").rglob("*") if file.is_file()}
        assert not [name for name in sent if name.endswith(".py")]
    assert len(re.findall(r"^great \(1\) |^terrible \(0\) ", log, re.MULTILINE)) == 6  # two texts, three results
    for client in CLIENTS:
        assert "invoking task executor ClientExecutor" in said_by(output, client)
    assert log.count("FINISHED:COMPLETED") == 4  # of `watch`
    for number, last in (
        *((n, 1) for n in range(2)),
        *((n, 4) for n in range(5)),
        *((n, 2) for n in range(3)),
        (5, 6),
        (6, 6),
    ):
        assert log.count(f"\nround {number}/{last} ") == 1
    assert not processes.members(output)


def test_with_code_that_jobs_carry_ended_in_the_middle(walk, tmp_path):
    """SIGTERM while the second job runs: one line, no process left. The first job's results are there."""
    running = walk("--code", "carried")
    output = tmp_path / "federation"
    until = time.monotonic() + 600
    while not is_watched(output, "reviews-lpfl") and running.poll() is None and time.monotonic() < until:
        time.sleep(0.2)
    assert running.poll() is None, running.stderr.read()
    assert len(processes.members(output)) > 8  # scripts and services of four parties
    running.send_signal(signal.SIGTERM)
    _, complaints = running.communicate(timeout=60)
    assert running.returncode == 130
    assert complaints == "interrupted: all processes of the federation have been ended\n"
    assert not processes.members(output)

    [fedbpt] = results(output, "fedbpt")
    summary = json.loads((fedbpt / "summary.json").read_text(encoding="utf-8"))
    assert summary["clients"] == CLIENTS
    assert [len(r["clients"]) for r in summary["rounds"]] == [3] * 5
    for site, file in run_local.HOSPITALS.items():
        folders = output / site / "venv" / "lib"
        assert not list(folders.glob("python*/site-packages/flaretune*"))  # the job brought it
        own = (output / site / site / "local" / "flaretune.toml").read_text(encoding="utf-8")
        assert f'data_path = "{output}/data/{site}/{file}"' in own
        assert "of this client's own ../../local/flaretune.toml: data_path, model_name, device" in said_by(output, site)
