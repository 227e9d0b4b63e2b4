from __future__ import annotations

import pytest


@pytest.fixture
def no_job(monkeypatch, tmp_path):
    """A test fails where a simulation is about to start; and the cache folder is not this machine's."""
    from flaretune.flare import run_job

    monkeypatch.setenv("FLARETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run_job, "SimEnv", lambda **_: pytest.fail("a job was about to start"))
