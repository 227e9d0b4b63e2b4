"""A task: which columns hold texts and labels, how they become a question, and where the data is."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from flaretune.cache import cache_dir
from flaretune.errors import UserError
from flaretune.tasks.checks import (
    check_columns,
    check_label_words,
    check_labels,
    check_metric,
    check_source,
    check_template,
)
from flaretune.tasks.toml_table import Table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Kind = Literal["masked", "causal"]


@dataclass(frozen=True)
class Wording:
    """How a text becomes a question to one kind of model, and which words are the answers.

    Attributes:
        template: fields are the task's text columns in braces. For a masked model it also has ``{mask}``, the
            answer position; for a causal model the answer is the token that follows its end.
        label_words: by class id, exactly as they are written at the answer position: ``" great"`` and
            ``"great"`` are different tokens for most tokenizers.
    """

    template: str
    label_words: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Where a task's data is: on a hub, or on this machine.

    Attributes:
        hub: id of a data set on the Hugging Face hub, or None.
        config: its configuration, where it has several.
        path: a data file or a folder of ``<split>.csv|jsonl|json|parquet``, or None. Absolute after loading.
        train, test: names of the splits that training and development examples and test examples come from.
    """

    hub: str | None
    config: str | None
    path: str | None
    train: str
    test: str


@dataclass(frozen=True)
class TaskSpec:
    """A text-classification task. Classes have ids 0 … C−1, in the order of ``label_values``.

    Attributes:
        text_columns: columns that templates may use.
        label_column: column of the raw label.
        label_values: the raw label of each class id; numbers and their string forms are the same (0 and "0").
        drop_labels: raw labels of rows to leave out, such as −1 for "annotators did not agree".
        metric: "accuracy", or "f1" of ``positive_class``.
        positive_class: a class id; only for "f1".
        placeholder_tail: masked models, mode ``add``: what stands between the placeholders and the template.
        masked, causal: the wording for each kind of model; one may be None.

    Raises:
        UserError: on creation, when the parts do not fit together.
    """

    name: str
    description: str
    text_columns: tuple[str, ...]
    label_column: str
    label_values: tuple[int | str, ...]
    drop_labels: tuple[int | str, ...]
    metric: str
    positive_class: int | None
    masked: Wording | None
    causal: Wording | None
    source: Source
    placeholder_tail: str = " . "

    def __post_init__(self) -> None:
        if self.masked is None and self.causal is None:
            raise UserError("neither [masked] nor [causal] is there; a task needs at least one of the two")
        check_columns(self.text_columns, self.label_column)
        check_labels(self.label_values, self.drop_labels)
        check_metric(self.metric, self.positive_class, self.n_classes)
        check_source(**asdict(self.source))
        for kind, wording in (("masked", self.masked), ("causal", self.causal)):
            if wording is not None:
                check_template(kind, wording.template, self.text_columns)
                check_label_words(kind, wording.label_words, self.label_values)

    @property
    def n_classes(self) -> int:
        return len(self.label_values)

    def wording(self, kind: Kind) -> Wording:
        """The wording for a kind of model.

        Raises:
            UserError: the task has none for that kind.
        """
        wording = {"masked": self.masked, "causal": self.causal}[kind]
        if wording is None:
            raise UserError(
                f"task {self.name!r} has no wording for a {kind} model; add a table [{kind}] with "
                f"template and label_words to its file, or choose a model of the other kind"
            )
        return wording


def available_tasks() -> list[str]:
    """Names of the tasks that flaretune ships, sorted."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.toml"))


def load_task(name_or_file: str | Path) -> TaskSpec:
    """Read a task that flaretune ships (``"sst2"``) or a user's task file (a path ending in ``.toml``).

    Raises:
        UserError: no such task or file, or something in the file is wrong; the message says what.
    """
    file = _task_file(str(name_or_file))
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"task file {file} cannot be read ({error.strerror}); check its path") from error
    except (ValueError, RecursionError) as error:  # ValueError: TOMLDecodeError and UnicodeDecodeError
        raise UserError(f"task file {file} is not valid TOML: {error}") from error
    return parse_task(values, name=file.stem, place=f"task file {file}", folder=file.resolve().parent)


def parse_task(values: Mapping[str, Any], name: str, place: str, folder: Path | None = None) -> TaskSpec:
    """Make a task from the contents of a task file.

    Args:
        values: the file's contents.
        name: the task's name.
        place: what error messages call the file.
        folder: what a relative ``path`` in ``[source]`` is relative to; default the working folder.

    Raises:
        UserError: an unknown, missing or wrong entry; the message starts with ``place``.
    """
    keys = ("description", "text_columns", "label_column", "label_values", "drop_labels", "metric")
    keys += ("positive_class", "placeholder_tail", "masked", "causal", "source")
    table = Table(values, place, keys)
    wordings = {}
    for kind in ("masked", "causal"):
        part = table.table(kind, ("template", "label_words"), default=None)
        wordings[kind] = part and Wording(part.text("template"), part.texts("label_words"))
    source = table.table("source", ("hub", "config", "path", "train", "test"))
    path = source.text("path", None)
    words = next((wording.label_words for wording in wordings.values() if wording), ())
    entries = dict(
        description=table.text("description", ""),
        text_columns=table.texts("text_columns"),
        label_column=table.text("label_column"),
        label_values=table.labels("label_values", tuple(range(len(words)))),
        drop_labels=table.labels("drop_labels", ()),
        metric=table.text("metric"),
        positive_class=table.integer("positive_class", None),
        placeholder_tail=table.text("placeholder_tail", " . "),
        source=Source(
            hub=source.text("hub", None),
            config=source.text("config", None),
            path=path and _absolute(path, folder),
            train=source.text("train"),
            test=source.text("test"),
        ),
    )
    try:
        return TaskSpec(name=name, **entries, **wordings)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def task_table(spec: TaskSpec) -> dict[str, Any]:
    """What ``parse_task`` reads back as this task, in dicts, lists, strings and ints. Without the name."""
    table = _plain(asdict(spec))
    del table["name"]
    return table


def _task_file(name: str) -> Path:
    if name.endswith(".toml"):
        return Path(name).expanduser()
    names = available_tasks()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(
            f"unknown task {name!r}; {hint}there are {', '.join(names)}, or give the path of a task "
            f"file, which ends in .toml"
        )
    return Path(__file__).parent / f"{name}.toml"


def _absolute(path: str, folder: Path | None) -> str:
    expanded = Path(path.replace("{cache}", str(cache_dir()))).expanduser()
    return str((folder or Path.cwd()) / expanded)  # an absolute right side replaces the left


def _plain(value: Any) -> Any:
    """Tuples to lists, entries that are None left out, at every depth."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
