"""Strict reading of a TOML table: a key that is unknown, missing or of the wrong type is a sentence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from flaretune.errors import shown
from flaretune.tasks.checks import AUTO, OUT_OF_SCOPE, Problem, is_word_list

REQUIRED: Any = object()  # as a default: the key must be there


class Table:
    """A table of a TOML file that is read key by key. What is wrong is noted, so that all of it can be said at once.

    Every method gives None for a key that is missing though it is required, or that is of another type.

    Args:
        values: the table as the TOML reader gave it.
        keys: all keys that may stand in it.
        problems: gets what is wrong.
        name: of the table, e.g. ``"source"``; empty for the file's top.

    Attributes:
        misspelt: keys that are absent where an unknown one looks as if it were meant; they are not told as missing.
    """

    def __init__(self, values: Mapping[str, Any], keys: tuple[str, ...], problems: list[Problem], name: str = ""):
        self._values = values
        self._problems = problems
        self._name = name
        self.misspelt: set[str] = set()
        for key in values:
            if key not in keys:
                near = difflib.get_close_matches(key, [k for k in keys if k not in values], n=1)
                self.misspelt.update(near)
                hint = f"did you mean {near[0]!r}?" if near else f"its keys are {', '.join(keys)}"
                self._note(key, f"unknown key {shown(key)}; {hint}")

    def text(self, key: str, default: Any = REQUIRED) -> Any:
        """A string; ``default`` (a string or None) if the key is absent."""
        return self._read(key, default, "a string", lambda v: isinstance(v, str))

    def integer(self, key: str, default: Any = REQUIRED) -> Any:
        """A whole number; ``default`` (an int or None) if the key is absent."""
        return self._read(key, default, "a whole number", _is_integer)

    def flag(self, key: str, default: Any = REQUIRED) -> Any:
        """True or false; ``default`` if the key is absent."""
        return self._read(key, default, "true or false", lambda v: isinstance(v, bool))

    def texts(self, key: str, default: Any = REQUIRED) -> Any:
        """A list of strings as a tuple."""
        return _tuple(self._read(key, default, "a list of strings", _is_list_of(lambda v: isinstance(v, str))))

    def labels(self, key: str, default: Any = REQUIRED) -> Any:
        """A list of whole numbers and strings as a tuple; true is taken as "true", and 1.0 as 1."""
        wanted = "a list of whole numbers or strings"
        values = self._values.get(key)
        if isinstance(values, list) and any(isinstance(value, float) for value in values):
            wanted += f" ({OUT_OF_SCOPE})"
        labels = self._read(key, default, wanted, _is_list_of(_is_label))
        return labels if labels is None else tuple(map(_plain_label, labels))

    def words(self, key: str) -> Any:
        """A list of strings, or of lists of strings for several words of a class, as a tuple; or `AUTO`."""
        if self._values.get(key) == AUTO:
            return AUTO
        wanted = f"a list of strings, one for each class, or lists of strings for several words of a class, or {AUTO!r}"
        if key not in self._values:
            wanted += f"; without it a task is no classification, and {OUT_OF_SCOPE}"
        words = self._read(key, REQUIRED, wanted, is_word_list)
        return words and tuple(word if isinstance(word, str) else tuple(word) for word in words)

    def table(self, key: str, keys: tuple[str, ...], default: Any = REQUIRED) -> Table | None:
        """The table ``[key]`` with its own known keys; ``default`` (None) if it is absent."""
        values = self._read(key, default, f"a table [{key}]", lambda v: isinstance(v, Mapping))
        return Table(values, keys, self._problems, key) if isinstance(values, Mapping) else None

    def _read(self, key: str, default: Any, wanted: str, is_right) -> Any:
        if key not in self._values:
            if default is REQUIRED and key not in self.misspelt:
                self._note(key, f"key {key!r} is missing; it must be {wanted}")
            return None if default is REQUIRED else default
        value = self._values[key]
        if is_right(value):
            return value
        self._note(key, f"key {key!r} must be {wanted}, not {shown(value)}")
        return None

    def _note(self, key: str, sentence: str) -> None:
        path = (self._name, key) if self._name else (key,)
        self._problems.append(Problem(path, f"[{self._name}]: {sentence}" if self._name else sentence))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_label(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and value.is_integer())


def _plain_label(value: Any) -> int | str:
    if isinstance(value, bool):
        return str(value).lower()
    return int(value) if isinstance(value, float) else value


def _is_list_of(is_item):
    return lambda value: isinstance(value, list | tuple) and all(is_item(item) for item in value)


def _tuple(values: Any) -> Any:
    return None if values is None else tuple(values)
