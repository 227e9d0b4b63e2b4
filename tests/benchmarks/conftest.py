from __future__ import annotations

import shutil
import signal
import sys
from functools import partial

import compare
import compare_report
import pytest

from tests.benchmarks.made_up_comparison import FAKE_JOB, PLAN, a_summary, write_plan


@pytest.fixture(autouse=True)
def _signals():
    """`main` takes SIGTERM; pytest gets it back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def replace_jobs(monkeypatch, folder, failing=(), hanging=(), summary=None):
    """Put a made-up job in place of the real ones; its script is in `folder`."""
    code = FAKE_JOB.format(failing=list(failing), hanging=list(hanging), summary=repr(summary or a_summary()))
    script = folder / "fake_job.py"
    script.write_text(code, encoding="utf-8")

    def command(run, output):
        return [sys.executable, "-I", "-S", str(script), *compare.job_command(run, output)[2:]]

    monkeypatch.setattr(compare.run_job, "__defaults__", (command,))
    # tests of the figure draw it themselves, once
    monkeypatch.setattr(compare_report, "draw", lambda _layout, _results, path: path.touch())
    return script


@pytest.fixture
def fake_job(monkeypatch, tmp_path):
    return partial(replace_jobs, monkeypatch, tmp_path)


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory):
    """What the whole plan leaves where no run fails: only to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as monkeypatch:
        replace_jobs(monkeypatch, folder)
        before = signal.getsignal(signal.SIGTERM)
        assert compare.main(["--plan", str(write_plan(folder)), "--output", str(folder / "out")]) == 0
        signal.signal(signal.SIGTERM, before)
    (folder / "out" / "started.txt").unlink()
    return folder / "out"


@pytest.fixture
def finished(finished_runs, fake_job, tmp_path):
    """The whole plan has been run in this test's folder; what is missing there is run by the made-up job."""
    fake_job()
    return shutil.copytree(finished_runs, tmp_path / "out")


@pytest.fixture
def main(tmp_path):
    """Run the command line on a plan of its own."""

    def call(*argv, text=PLAN):
        return compare.main(["--plan", str(write_plan(tmp_path, text)), "--output", str(tmp_path / "out"), *argv])

    return call
