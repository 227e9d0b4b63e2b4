"""The entries of a task file, read as far as they can be, with everything that is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaretune.cache import CACHE, in_cache
from flaretune.errors import shown
from flaretune.tasks.checks import AUTO, KINDS, OUT_OF_SCOPE, Problem, is_list_of, is_text, task_problems

REQUIRED: Any = object()  # as a default: the key must be there
NO_WORDING = (
    "neither [masked] nor [causal] is there; a task needs at least one of the two, each with template and label words "
    f"({OUT_OF_SCOPE})"
)
_KEYS = ("description", "text_columns", "label_column", "label_values", "drop_labels", "metric")
_KEYS += ("positive_class", "placeholder_tail", "masked", "causal", "source")


def read_entries(values: Mapping[str, Any], folder: Path | None) -> tuple[dict[str, Any], list[Problem]]:
    """Read the contents of a task file.

    Args:
        values: as the TOML reader gave them.
        folder: what a relative ``path`` in ``[source]`` is relative to; default the working folder.

    Returns:
        The fields of `tasks.spec.TaskSpec` by name, but for the task's name, in dicts and tuples, None where one could
        not be read; and what is wrong with them.
    """
    problems: list[Problem] = []
    table = Table(values, _KEYS, problems)
    wordings: dict[str, Any] = {}
    for kind in KINDS:
        part = table.table(kind, ("template", "label_words", "first_token", "templates"), default=None)
        wordings[kind] = part and {
            "template": part.text("template"),
            "label_words": part.words("label_words"),
            "first_token": part.flag("first_token", False),
            "templates": part.texts("templates", None),
        }
    if not any(kind in values or kind in table.misspelt for kind in KINDS):
        # said first, since it says what such a file is, unless some key is one letter off
        problems.insert(len(problems) if table.misspelt else 0, Problem((), NO_WORDING))
    source = table.table("source", ("hub", "config", "path", "train", "test"))
    path = source and source.text("path", None)
    written = [wording["label_words"] for wording in wordings.values() if wording and wording["label_words"]]
    words = next((words for words in written if words != AUTO), None)
    numbered = tuple(range(len(words))) if words else (REQUIRED if written else None)  # "auto" does not say how many
    entries = dict(
        description=table.text("description", ""),
        text_columns=table.texts("text_columns"),
        label_column=table.text("label_column"),
        label_values=table.labels("label_values", numbered),
        drop_labels=table.labels("drop_labels", ()),
        metric=table.text("metric"),
        positive_class=table.integer("positive_class", None),
        placeholder_tail=table.text("placeholder_tail", " . "),
        source=source
        and {
            "hub": source.text("hub", None),
            "config": source.text("config", None),
            "path": path and _absolute(path, folder),
            "train": source.text("train"),
            "test": source.text("test"),
        },
        **wordings,
    )
    return entries, [*problems, *task_problems(entries)]


def is_beside(path: str) -> bool:
    """Whether a ``path`` in ``[source]`` is relative to the task's file, and not to a machine's folders or cache."""
    return not path.startswith(CACHE) and not Path(path).expanduser().is_absolute()


def _absolute(path: str, folder: Path | None) -> str:
    expanded = Path(in_cache(path)).expanduser()
    return str((folder or Path.cwd()) / expanded)  # an absolute right side replaces the left


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
        return self._read(key, default, "a string", is_text)

    def integer(self, key: str, default: Any = REQUIRED) -> Any:
        """A whole number; ``default`` (an int or None) if the key is absent."""
        return self._read(key, default, "a whole number", lambda v: isinstance(v, int) and not isinstance(v, bool))

    def flag(self, key: str, default: Any = REQUIRED) -> Any:
        """True or false; ``default`` if the key is absent."""
        return self._read(key, default, "true or false", lambda v: isinstance(v, bool))

    def texts(self, key: str, default: Any = REQUIRED) -> Any:
        """A list of strings as a tuple."""
        texts = self._read(key, default, "a list of strings", lambda v: is_list_of(v, is_text))
        return None if texts is None else tuple(texts)

    def labels(self, key: str, default: Any = REQUIRED) -> Any:
        """A list of whole numbers and strings as a tuple; true is taken as "true", and 1.0 as 1."""
        wanted = "a list of whole numbers or strings"
        values = self._values.get(key)
        if isinstance(values, list) and any(isinstance(value, float) for value in values):
            wanted += f" ({OUT_OF_SCOPE})"
        labels = self._read(key, default, wanted, lambda v: is_list_of(v, _is_label))
        return labels if labels is None else tuple(map(_plain_label, labels))

    def words(self, key: str) -> Any:
        """A list of strings, or of lists of strings for several words of a class, as a tuple; or `AUTO`."""
        if self._values.get(key) == AUTO:
            return AUTO
        wanted = f"a list of strings, one for each class, or lists of strings for several words of a class, or {AUTO!r}"
        if key not in self._values:
            wanted += f"; without it a task is no classification, and {OUT_OF_SCOPE}"
        words = self._read(key, REQUIRED, wanted, _is_word_list)
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


def _is_label(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and value.is_integer())


def _plain_label(value: Any) -> int | str:
    if isinstance(value, bool):
        return str(value).lower()
    return int(value) if isinstance(value, float) else value


def _is_word_list(value: Any) -> bool:
    return is_list_of(value, lambda of_class: is_text(of_class) or is_list_of(of_class, is_text))
