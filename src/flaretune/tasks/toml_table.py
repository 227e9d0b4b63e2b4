"""Strict reading of a TOML table: a key that is unknown, missing or of the wrong type is a sentence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from flaretune.errors import UserError, shown

REQUIRED: Any = object()  # as a default: the key must be there


class Table:
    """A table of a TOML file that is read key by key.

    Args:
        values: the table as the TOML reader gave it.
        place: what messages call it, e.g. ``"task file my.toml"`` or ``"[source] of task file my.toml"``.
        keys: all keys that may stand in it.

    Raises:
        UserError: a key that is not in ``keys``; the message offers the nearest one.
    """

    def __init__(self, values: Mapping[str, Any], place: str, keys: tuple[str, ...]):
        for key in values:
            if key not in keys:
                near = difflib.get_close_matches(key, keys, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"its keys are {', '.join(keys)}"
                raise UserError(f"{place}: unknown key {shown(key)}; {hint}")
        self._values = values
        self._place = place

    def text(self, key: str, default: Any = REQUIRED) -> Any:
        """A string; ``default`` (a string or None) if the key is absent."""
        return self._read(key, default, "a string", lambda v: isinstance(v, str))

    def integer(self, key: str, default: Any = REQUIRED) -> Any:
        """A whole number; ``default`` (an int or None) if the key is absent."""
        return self._read(key, default, "a whole number", _is_integer)

    def texts(self, key: str, default: Any = REQUIRED) -> Any:
        """A list of strings as a tuple."""
        return tuple(self._read(key, default, "a list of strings", _is_list_of(lambda v: isinstance(v, str))))

    def labels(self, key: str, default: Any = REQUIRED) -> Any:
        """A list of whole numbers and strings as a tuple."""
        wanted = "a list of whole numbers or strings"
        return tuple(self._read(key, default, wanted, _is_list_of(lambda v: isinstance(v, str) or _is_integer(v))))

    def table(self, key: str, keys: tuple[str, ...], default: Any = REQUIRED) -> Any:
        """The table ``[key]`` with its own known keys; ``default`` (None) if it is absent."""
        values = self._read(key, default, f"a table [{key}]", lambda v: isinstance(v, Mapping))
        return Table(values, f"[{key}] of {self._place}", keys) if isinstance(values, Mapping) else values

    def _read(self, key: str, default: Any, wanted: str, is_right) -> Any:
        if key not in self._values:
            if default is REQUIRED:
                raise UserError(f"{self._place}: key {key!r} is missing; it must be {wanted}")
            return default
        value = self._values[key]
        if not is_right(value):
            raise UserError(f"{self._place}: key {key!r} must be {wanted}, not {shown(value)}")
        return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list_of(is_item):
    return lambda value: isinstance(value, list | tuple) and all(is_item(item) for item in value)
