"""The entries of a task file, read as far as they can be, with everything that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaretune.cache import CACHE, in_cache
from flaretune.tasks.checks import AUTO, KINDS, OUT_OF_SCOPE, Problem, task_problems
from flaretune.tasks.toml_table import REQUIRED, Table

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
