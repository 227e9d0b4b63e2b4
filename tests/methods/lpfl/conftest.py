from __future__ import annotations

from pathlib import Path

import pytest

from flaretune.methods.lpfl.artifact import AdapterArtifact, save_adapter
from tests.methods.lpfl.made_up_adapters import a_whole_model, an_artifact


@pytest.fixture(params=["lora", "full"])
def artifact(request) -> AdapterArtifact:
    return {"lora": an_artifact, "full": a_whole_model}[request.param]()


@pytest.fixture
def folder(tmp_path, artifact) -> Path:
    save_adapter(artifact, tmp_path / "best_adapter")
    return tmp_path / "best_adapter"


@pytest.fixture
def lora(tmp_path) -> Path:
    save_adapter(an_artifact(), tmp_path / "lora")
    return tmp_path / "lora"
