from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.summaries import a_summary


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Callable[..., Path]:
    """``tiny(family, **overrides)`` is the folder of a tiny model, saved once for all tests: only to be read."""
    from tests.models_for_tests import save_tiny_model  # here, so that tests without a model start without torch

    @functools.cache
    def folder(family: str, **overrides) -> Path:
        return save_tiny_model(family, tmp_path_factory.mktemp(family), **overrides)

    return folder


@pytest.fixture(scope="session")
def llama(tiny) -> Path:
    return tiny("llama")


@pytest.fixture(scope="session")
def gpt2(tiny) -> Path:
    return tiny("gpt2")


@pytest.fixture(scope="session")
def roberta(tiny) -> Path:
    return tiny("roberta")


@pytest.fixture
def finished_run(tmp_path) -> Path:
    (tmp_path / "summary.json").write_text(json.dumps(a_summary()))
    return tmp_path
