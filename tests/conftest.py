from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import pytest

from flaretune import host as ports

# Libraries for models and data sets, and some that come with them.
FOR_MODELS = ("torch", "transformers", "peft", "datasets", "accelerate", "gguf", "litserve", "tokenizers")
FOR_MODELS += ("huggingface_hub", "fastapi", "uvicorn", "pandas", "pyarrow", "sklearn", "filelock")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Imported libraries are objects that stay: the garbage collector would spend an eighth of the time on them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Callable[..., Path]:
    """``tiny(family, **overrides)`` is the folder of a tiny model, saved once for all tests: only to be read."""
    from tests.models_for_tests import save_tiny_model  # here, so that tests without a model start without torch

    @functools.cache
    def folder(family: str, **overrides) -> Path:
        return save_tiny_model(family, tmp_path_factory.mktemp(family), **overrides)

    return folder


# Of one layer, for tests of what is done with a model: jobs take a third less time. tests/models has all of theirs.


@pytest.fixture(scope="session")
def llama(tiny) -> Path:
    return tiny("llama", num_hidden_layers=1)


@pytest.fixture(scope="session")
def gpt2(tiny) -> Path:
    return tiny("gpt2")


@pytest.fixture(scope="session")
def roberta(tiny) -> Path:
    return tiny("roberta", num_hidden_layers=1)


@pytest.fixture
def models_read_once():
    """For tests of what is done with a model that has been read; see `reading_models_once`."""
    from tests.engine.in_process import reading_models_once

    with reading_models_once():
        yield


def hide(packages: Iterable[str], folder: Path) -> Path:
    """Make imports of packages fail where Python looks into this folder first."""
    folder.mkdir()
    for name in packages:
        (folder / f"{name}.py").write_text("raise ModuleNotFoundError(f'{__name__} is not installed', name=__name__)\n")
    return folder


@pytest.fixture
def without_nvflare(tmp_path) -> Path:
    return hide(["nvflare"], tmp_path / "without_nvflare")


@pytest.fixture(scope="session")
def without_models(tmp_path_factory) -> Path:
    """A folder that hides what requirements-light.txt leaves out."""
    return hide(FOR_MODELS, tmp_path_factory.mktemp("without") / "models")


@pytest.fixture
def free_port() -> int:
    return ports.free_port()
