"""The methods there are: the one list."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from flaretune.errors import UserError, shown
from flaretune.methods.base import Method
from flaretune.methods.fedbpt import FedBPT
from flaretune.methods.lpfl import LPFL
from flaretune.methods.verbalizer import Verbalizer

if TYPE_CHECKING:
    from flaretune.methods.base import Artifact
    from flaretune.methods.classifier import Classifier
    from flaretune.tasks.spec import TaskSpec

METHODS: dict[str, Method] = {method.name: method for method in (FedBPT(), LPFL(), Verbalizer())}


def find_method(name: str) -> Method:
    """The method of a name, such as "fedbpt", or of a title, such as "FedBPT".

    Raises:
        UserError: there is none.
    """
    for method in METHODS.values():
        if name in (method.name, method.title):
            return method
    raise UserError(f"there is no method {name!r}; there are {', '.join(METHODS)}")


@dataclass(frozen=True)
class Saved:
    """What a job has left, read and checked, its model not loaded yet."""

    path: Path
    method: Method
    artifact: Artifact

    @property
    def spec(self) -> TaskSpec:
        """The task, with a source that stands for none."""
        return self.artifact.spec

    def open(self, model_name: str | None = None, dtype: str = "auto", device: str = "auto") -> Classifier:
        """Load the model; see `load_classifier`."""
        name = model_name or self.artifact.model["name"]
        return self.method.open(self.artifact, self.path, name, dtype, device)


def load_saved(path: str | Path) -> Saved:
    """Read what a job has left, a file or a folder, without its model.

    Raises:
        UserError: it is not there, is no result of a job, or was damaged or edited.
    """
    path = Path(path).expanduser()
    names = " or ".join(method.best for method in METHODS.values())
    if not path.exists():
        old = path.with_name(path.name + ".old")
        before = f"{old} is the one before, left when a save was cut off" if old.exists() else f"a job leaves {names}"
        raise UserError(f"--result {path}: there is no such file or folder; {before}")
    try:
        found = _format_of(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"--result {path}: no result of a job, or a damaged one ({error}); give {names}") from error
    for method in METHODS.values():
        if method.format == found:
            return Saved(path, method, method.read(path))
    known = " or ".join(repr(method.format) for method in METHODS.values())
    raise UserError(f"--result {path}: its format is {shown(found)}, not {known}; give {names}")


def load_classifier(
    result: str | Path, model_name: str | None = None, dtype: str = "auto", device: str = "auto"
) -> Classifier:
    """Open whatever a job has left, with its model, task and settings, ready to predict.

    Args:
        result: file or folder, such as ``runs/demo/best_prompt.safetensors``.
        model_name: hub id or folder of the model it was found with; None for where that was at the client.
        dtype, device: the options of these names; clients choose theirs, so a result holds none.

    Raises:
        UserError: see `load_saved`; or the model cannot be loaded, or is not the one it was found with.
    """
    return load_saved(result).open(model_name, dtype, device)


def _format_of(path: Path) -> Any:
    """What a file's metadata or a folder's description has as ``format``."""
    if path.is_dir():
        return json.loads((path / "flaretune.json").read_text(encoding="utf-8"))["format"]
    with safe_open(path, framework="numpy") as file:
        return (file.metadata() or {}).get("format")
