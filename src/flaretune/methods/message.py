"""Messages between server and clients, and the checks on receipt.

A message is named arrays and plain fields. Nothing is pickled, and no text, token, label or number of a single example
leaves a client: PRIVACY.md lists every field.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from flaretune.errors import UserError, shown
from flaretune.tasks.evaluation import HUGE
from flaretune.tasks.metrics.registry import find_metric

SCHEMA = 4
MOST = 2**53  # of anything that is counted: a float64 holds every whole number until then
Read = TypeVar("Read", bound=Callable)


@dataclass(eq=False)
class Message:
    """What one side sends to the other.

    Attributes:
        arrays: numpy arrays by name.
        fields: plain values (numbers, texts, lists and dicts of them) by name.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)


def message(arrays: Mapping[str, np.ndarray], fields: Mapping[str, Any]) -> Message:
    """A message of this version."""
    return Message(dict(arrays), {"schema": SCHEMA, **fields})


@contextmanager
def readable() -> Iterator[None]:
    """While a client reads a server's message.

    Raises:
        UserError: it makes nothing of it.
    """
    try:
        yield
    except UserError:
        raise
    except (ValueError, KeyError, IndexError, TypeError) as error:
        said = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise UserError(
            f"the server's message cannot be read ({said}): server and clients need the same version of flaretune"
        ) from error


def reader(read: Read) -> Read:
    """Let a reader of messages raise nothing but ValueError, whatever the other side has sent."""

    @functools.wraps(read)
    def checked(*args: Any, **more: Any) -> Any:
        try:
            return read(*args, **more)
        except (KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
            raise ValueError(f"a field is missing or of another type ({type(error).__name__}: {error})") from error

    return checked


def read_fields(received: Message) -> Mapping[str, Any]:
    """The fields of a message of this version.

    Raises:
        ValueError: it is of another version, or none of flaretune's.
    """
    fields = received.fields
    if not isinstance(fields, Mapping):
        raise ValueError("the message has no 'flaretune' field: is the other side running flaretune?")
    if type(fields.get("schema")) is not int or fields["schema"] != SCHEMA:
        raise ValueError(f"message schema {shown(fields.get('schema'))}, expected {SCHEMA}: update the older side")
    return fields


def read_array(arrays: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A finite numeric array of this shape, of the type that it was sent in."""
    if name not in arrays:
        raise ValueError(f"array {name!r} is missing")
    values = np.asarray(arrays[name])
    if values.dtype.kind not in "fiu":
        raise ValueError(f"array {name!r} has type {values.dtype}, expected numbers")
    if values.shape != tuple(shape):
        raise ValueError(f"array {name!r} has shape {values.shape}, expected {tuple(shape)}")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"array {name!r} holds values that are not finite")
    return values


def read_arrays(arrays: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The arrays of these names and shapes, and no others, each as `read_array` has it."""
    if extra := sorted(set(arrays) - set(shapes)):
        raise ValueError(f"array {extra[0]!r} is none of those that are sent")
    return {name: read_array(arrays, name, shape) for name, shape in shapes.items()}


def read_counts(
    arrays: Mapping[str, Any], name: str, task: Mapping[str, Any], n_examples: int | None = None
) -> np.ndarray:
    """Counts of a task's metric that can be, int64, shape (n_counts,).

    Args:
        arrays: of the message.
        name: of the counts.
        task: the job's, as its settings have it.
        n_examples: how many examples they are of; None if that is not known.
    """
    metric, values = find_metric(task["metric"]), np.asarray(arrays.get(name))
    n_counts = metric.n_counts(len(task["label_values"]))
    if values.dtype.kind not in "iu" or values.shape != (n_counts,) or np.any((values < 0) | (values > MOST)):
        raise ValueError(f"array {name!r} is not a vector of {n_counts} counts")
    metric.check_possible(values.astype(np.int64), n_examples)
    return values.astype(np.int64)


def read_number(fields: Mapping[str, Any], name: str, at_least: float = -HUGE, at_most: float = HUGE) -> float:
    """A finite number within limits."""
    value = fields.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not np.isfinite(float(value)):
        raise ValueError(f"{name!r} is {shown(value)}, expected a number")
    if not at_least <= value <= at_most:
        raise ValueError(f"{name!r} is {shown(value)}, expected a number between {at_least:g} and {at_most:g}")
    return float(value)


def read_flag(fields: Mapping[str, Any], name: str) -> bool:
    """True or false."""
    value = fields.get(name)
    if not isinstance(value, bool):
        raise ValueError(f"{name!r} is {shown(value)}, expected yes or no")
    return value


def read_natural(fields: Mapping[str, Any], name: str) -> int:
    """A whole number of at least 0."""
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
        raise ValueError(f"{name!r} is {shown(value)}, expected a whole number of at least 0")
    return value


def check_few_shots(settings: Mapping[str, Any], **sizes: int) -> None:
    """Check that a client has not more labelled texts of a kind than k for each class.

    Raises:
        ValueError: it says that it has; names the field.
    """
    most = settings["options"]["k_shot"] * len(settings["task"]["label_values"])
    for name, size in sizes.items():
        if size > most:
            raise ValueError(f"{name!r} tells of {size} texts, and --k_shot gives a client {most} at the most")
