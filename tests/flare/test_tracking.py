"""Trackers that cannot be used; test_shared_model_jobs.py, test_jobs.py and test_lpfl_jobs.py have jobs with others."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flaretune.engine.errors import Failure, failures_below
from flaretune.errors import UserError
from flaretune.flare.tracking import RunTracking, check_tracker


def test_a_tracker_that_does_not_exist_or_is_not_installed_is_named(monkeypatch):
    with pytest.raises(UserError, match="'neptune': there are mlflow, wandb"):
        check_tracker("neptune")
    monkeypatch.setattr("flaretune.flare.tracking.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install wandb"):
        check_tracker("wandb")


def test_a_tracker_that_cannot_start_is_recorded_among_the_results(tmp_path):
    workspace = SimpleNamespace(get_run_dir=lambda job_id: str(tmp_path / job_id))
    context = SimpleNamespace(get_workspace=lambda: workspace, get_job_id=lambda: "job")
    with pytest.raises(UserError) as refused:
        RunTracking("neptune").initialize(context)
    assert list(failures_below(tmp_path / "job" / "flaretune")) == [Failure("server", str(refused.value))]
