from __future__ import annotations

import signal
import sys

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


@pytest.fixture
def fake_job(monkeypatch, tmp_path):
    """Put a made-up job in place of the real ones."""

    def use(failing=(), hanging=(), summary=None):
        code = FAKE_JOB.format(failing=list(failing), hanging=list(hanging), summary=repr(summary or a_summary()))
        script = tmp_path / "fake_job.py"
        script.write_text(code, encoding="utf-8")

        def command(run, folder):
            return [sys.executable, str(script), *compare.job_command(run, folder)[2:]]

        monkeypatch.setattr(compare.run_job, "__defaults__", (command,))
        # tests of the figure draw it themselves, once
        monkeypatch.setattr(compare_report, "draw", lambda _layout, _results, path: path.touch())
        return script

    return use


@pytest.fixture
def main(tmp_path):
    """Run the command line on a plan of its own."""

    def call(*argv, text=PLAN):
        return compare.main(["--plan", str(write_plan(tmp_path, text)), "--output", str(tmp_path / "out"), *argv])

    return call
