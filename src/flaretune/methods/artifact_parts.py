"""What a saved result says of itself besides its numbers: its task, options and model, and how it was found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from flaretune.config.options import build
from flaretune.errors import UserError, shown
from flaretune.tasks.spec import Kind

Settings = TypeVar("Settings")

PARTS = ("task", "options", "model", "result")  # each a dict of plain JSON values
_MODEL = {"name": str, "kind": str, "hidden_size": int}


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
    try:
        saved = saved_prior(result, n_classes)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    return np.ones(n_classes) if saved is None else saved


def build_settings(config: type, settings: type[Settings], options: Mapping[str, Any], place: str | Path) -> Settings:
    """Those of a result's options that its model is opened with, after all have been checked."""
    try:
        build(config, options)
        return build(settings, options)
    except TypeError as error:
        raise UserError(f"{place} was written by another version of flaretune ({error}); use that one") from error


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


def checksum(digest: Any, texts: Mapping[str, str]) -> str:
    """The sha256 of all that a saved result holds: bits that flip in its numbers would otherwise pass for another.

    Args:
        digest: a hashlib object that has been given the numbers.
        texts: its parts in JSON, by name, in the order in which they count.
    """
    for part, text in texts.items():
        digest.update(f"\n{part}\n{text}".encode())
    return digest.hexdigest()
