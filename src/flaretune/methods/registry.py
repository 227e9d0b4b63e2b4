"""The methods there are: the one list."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flaretune.errors import UserError
from flaretune.methods.base import Method
from flaretune.methods.fedbpt import FedBPT
from flaretune.methods.lpfl import LPFL

if TYPE_CHECKING:
    from flaretune.methods.classifier import Classifier

METHODS: dict[str, Method] = {method.name: method for method in (FedBPT(), LPFL())}


def find_method(name: str) -> Method:
    """The method of a name, such as "fedbpt", or of a title, such as "FedBPT".

    Raises:
        UserError: there is none.
    """
    for method in METHODS.values():
        if name in (method.name, method.title):
            return method
    raise UserError(f"there is no method {name!r}; there are {', '.join(METHODS)}")


def method_of(result: str | Path) -> Method:
    """The method that a result is of: a file or folder that a job has left.

    Raises:
        UserError: it is not there, or of none.
    """
    path = Path(result).expanduser()
    if not path.exists():
        raise UserError(f"{path} is not there; give a file or folder that a job has left, {_results()}")
    for method in METHODS.values():
        if method.can_open(path):
            return method
    raise UserError(f"{path} is no result of flaretune; give a file or folder that a job has left, {_results()}")


def load_classifier(
    result: str | Path, model_name: str | None = None, dtype: str = "auto", device: str = "auto"
) -> Classifier:
    """Open whatever a job has left, with its model, task and settings, ready to predict.

    Args:
        result: file or folder, such as ``runs/demo/best_prompt.safetensors``.
        model_name: hub id or folder of the model it was found with; None for where that was at the client.
        dtype, device: how the model is run here; see the options of these names.

    Raises:
        UserError: it is no result, is damaged, or its model cannot be loaded or is not the one it was found with.
    """
    return method_of(result).open(Path(result).expanduser(), model_name, dtype, device)


def _results() -> str:
    return "such as " + " or ".join(f"{method.best} ({method.title})" for method in METHODS.values())
