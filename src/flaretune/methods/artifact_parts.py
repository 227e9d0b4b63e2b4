"""What a saved result says of itself besides its numbers: its task, options and model, and how it was found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flaretune.config.options import build
from flaretune.errors import UserError, shown
from flaretune.files import atomic_write
from flaretune.methods.base import Method
from flaretune.tasks.spec import Kind, TaskSpec, read_task

Settings = TypeVar("Settings")
Made = TypeVar("Made")

PARTS = ("task", "options", "model", "result")  # each a dict of plain JSON values
LEARNED_PARTS = ("templates", "word_texts")  # of a learned verbalizer, lists of texts
_MODEL = {"name": str, "kind": str, "hidden_size": int}


@dataclass(frozen=True, eq=False, kw_only=True)
class SavedParts:
    """What every result says of itself; plain JSON values.

    Attributes:
        task: the task, as `tasks.spec.task_table` gives it, with its name and without its data source.
        options: the clients' options that they agreed on.
        model: name, kind and hidden size of the model it was found with.
        result: round, validation and test accuracy, and what else is worth keeping.
    """

    kept_in: ClassVar[str]  # what messages call it, such as "prompt file"

    task: dict[str, Any]
    options: dict[str, Any]
    model: dict[str, Any]
    result: dict[str, Any]

    @property
    def quantize(self) -> str:
        """How the weights of the model were quantised that it was found with; none where it is not said."""
        return self.options.get("quantize", "none")

    @property
    def spec(self) -> TaskSpec:
        """The task, with a source that stands for none.

        Raises:
            UserError: its parts do not fit together.
        """
        return read_task(self.task, self.kept_in)


@dataclass(frozen=True)
class ResultFile:
    """A kind of result that is one safetensors file: arrays and, as readable metadata, all they belong to.

    Attributes:
        method: whose; says what it is called and how its format is.
        digest: begins the checksum with its arrays, by name.
    """

    method: type[Method]
    digest: Callable[[Mapping[str, np.ndarray]], Any]

    def write(self, path: Path, arrays: Mapping[str, np.ndarray], parts: Mapping[str, Any]) -> None:
        """Write the file, whole or not at all; parts are JSON values by name, in the order of the checksum."""
        arrays = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        texts = {name: json.dumps(value, sort_keys=True, ensure_ascii=False) for name, value in parts.items()}
        metadata = {"format": self.method.format, "sha256": checksum(self.digest(arrays), texts), **texts}
        atomic_write(path, save(arrays, metadata))

    def read(self, path: str | Path, make: Callable[[dict[str, np.ndarray], dict[str, Any]], Made]) -> Made:
        """What `make` makes of arrays and parts, after checking that the file is what was written.

        Args:
            path: of the file.
            make: checks them too; ValueError, TypeError and KeyError stand for a file of another version.

        Raises:
            UserError: it is not there, is no such file, or was damaged or edited.
        """
        if not Path(path).is_file():
            raise UserError(f"{self.method.kind} file {path} does not exist; a job leaves it as {self.method.best}")
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            # not only SafetensorError: number formats that numpy lacks end in errors of several kinds
            raise UserError(
                f"{path} is damaged or no {self.method.kind} file ({error}); give one that a job has left"
            ) from error
        if (found := metadata.get("format")) != self.method.format:
            raise UserError(f"{path} is no {self.method.kind}: its format is {found!r}, not {self.method.format!r}")
        texts = {name: metadata.get(name, "") for name in (*LEARNED_PARTS, *PARTS) if name in metadata or name in PARTS}
        if metadata.get("sha256") != checksum(self.digest(arrays), texts):
            raise UserError(
                f"{path} was damaged or edited: its contents do not have the sha256 noted in it; copy it anew"
            )
        with reading(path):
            parts = {name: json.loads(text) for name, text in texts.items()}
            if wrong := [part for part in PARTS if not isinstance(parts[part], dict)]:
                raise TypeError(f"{wrong[0]} is no table")
            made = make(arrays, parts)
            check_model(parts["model"])
        return made


@contextmanager
def reading(place: str | Path) -> Iterator[None]:
    """While what a result says is read, which has its right sha256.

    Raises:
        UserError: something is wrong with it, or missing; names the place.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{place} was written by another version of flaretune ({error!r}); use that one") from error


def told_parts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a result that the clients of a job agree on."""
    return {part: settings[part] for part in ("task", "options", "model")}


def check_model(model: Mapping[str, Any]) -> None:
    """Check that a result says what model it was found with.

    Raises:
        KeyError, TypeError: an entry is missing, or of another type.
    """
    for key, wanted in _MODEL.items():
        if type(model[key]) is not wanted:
            raise TypeError(f"the model's {key} is {model[key]!r}")


def saved_prior(result: Mapping[str, Any], n_classes: int) -> np.ndarray | None:
    """The prior that a result's probabilities are to be divided by, float64 (C,); None for none.

    Raises:
        UserError: it is not one number above 0 for each class.
    """
    if "prior" not in result:
        return None
    values = result["prior"]
    right = isinstance(values, list) and all(type(v) in (int, float) and 0 < v < 1e9 for v in values)
    if not right or len(values) != n_classes:
        raise UserError(f"its prior {shown(values)} is not a number above 0 for each of {n_classes} classes")
    return np.array(values, dtype=np.float64)


def prior_of(result: Mapping[str, Any], n_classes: int, place: str | Path) -> np.ndarray:
    """The same, ones where there is none; what is wrong is said of the place."""
    with reading(place):
        saved = saved_prior(result, n_classes)
    return np.ones(n_classes) if saved is None else saved


def build_settings(config: type, settings: type[Settings], options: Mapping[str, Any], place: str | Path) -> Settings:
    """Those of a result's options that its model is opened with, after all have been checked."""
    with reading(place):
        build(config, options)
        return build(settings, options)


def check_opened(name: str, kind: Kind, hidden_size: int, wanted: Mapping[str, Any], what: str) -> None:
    """Whether a model is of the kind and size that a prompt or an adapter was found with.

    Raises:
        UserError: says what differs.
    """
    for key, value in {"kind": kind, "hidden_size": hidden_size}.items():
        if value != wanted[key]:
            raise UserError(
                f"--model_name {name}: its {key.replace('_', ' ')} is {value}, but the {what} was found with "
                f"{wanted['name']}, where it is {wanted[key]}; give that model"
            )


def array_digest(arrays: Mapping[str, np.ndarray], digest: Any = None) -> Any:
    """The beginning of a checksum: arrays by name, with their types and shapes.

    Args:
        arrays: in any order.
        digest: a hashlib object that has been given others; None for a new one.
    """
    digest = digest or hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest


def checksum(digest: Any, texts: Mapping[str, str]) -> str:
    """The sha256 of all that a saved result holds: bits that flip in its numbers would otherwise pass for another.

    Args:
        digest: a hashlib object that has been given the numbers.
        texts: its parts in JSON, by name, in the order in which they count.
    """
    for part, text in texts.items():
        digest.update(f"\n{part}\n{text}".encode())
    return digest.hexdigest()
