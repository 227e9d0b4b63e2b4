"""Trackers that cannot be used; test_shared_model_jobs.py, test_jobs.py and test_lpfl_jobs.py have jobs with others."""

from __future__ import annotations

import pytest

from flaretune.errors import UserError
from flaretune.flare.tracking import check_tracker


def test_a_tracker_that_does_not_exist_or_is_not_installed_is_named(monkeypatch):
    with pytest.raises(UserError, match="'neptune': there are mlflow, wandb"):
        check_tracker("neptune")
    monkeypatch.setattr("flaretune.flare.tracking.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install wandb"):
        check_tracker("wandb")
