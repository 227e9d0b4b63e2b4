"""A task: which columns hold texts and labels, how they become a question, and where the data is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from flaretune.config.toml import line_of, read_toml
from flaretune.errors import UserError, near
from flaretune.tasks.checks import AUTO, KINDS, Problem, Words, alternatives, task_problems
from flaretune.tasks.entries import NO_WORDING, is_beside, read_entries

Kind = Literal["masked", "causal"]

# Tasks of the user's own that `nvflare job create -sd ./src` and the recipes carry into a job.
BUILTIN_FOLDER = Path(__file__).with_name("builtin")
LOCAL_FOLDER = Path(__file__).parents[2] / "tasks_local"


@dataclass(frozen=True)
class Wording:
    """How a text becomes a question to one kind of model, and which words are the answers.

    Attributes:
        template: fields are the task's text columns in braces. For a masked model it also has ``{mask}``, the
            answer position; for a causal model the answer is the token that follows its end.
        label_words: by class id, exactly as they are written at the answer position: ``" great"`` and
            ``"great"`` are different tokens for most tokenizers. A tuple of words is scored as one class (see
            `models.verbalizer`). "auto": the task has none, and the method `verbalizer` finds some.
        first_token: a word of several tokens stands for its first one, as in the published code.
        templates: further ones for the method `verbalizer`, which can ask with several; None for none.
    """

    template: str
    label_words: tuple[Words, ...] | str
    first_token: bool = False
    templates: tuple[str, ...] | None = None

    @property
    def has_label_words(self) -> bool:
        """Whether the task names them."""
        return self.label_words != AUTO

    @property
    def names(self) -> tuple[str, ...]:
        """What a person calls the classes: their words, without the blanks."""
        return tuple("/".join(word.strip() for word in alternatives(words)) for words in self.label_words)


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
        metric: a name in `tasks.metrics.registry`: "accuracy", "f1" of ``positive_class``, "macro_f1".
        positive_class: a class id; only for a metric that is about one class.
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
            raise UserError(NO_WORDING)
        for problem in task_problems(asdict(self)):
            raise UserError(problem.sentence)

    @property
    def n_classes(self) -> int:
        return len(self.label_values)

    @property
    def has_label_words(self) -> bool:
        """Whether it names them for some kind of model."""
        return any(wording.has_label_words for wording in (self.masked, self.causal) if wording)

    def class_names(self, kind: Kind) -> list[str]:
        """What a person calls the classes: by their words, or, where the task names none, by their raw labels."""
        wording = self.wording(kind)
        return list(wording.names) if wording.has_label_words else [str(value) for value in self.label_values]

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
    return sorted(file.stem for file in BUILTIN_FOLDER.glob("*.toml"))


def local_tasks() -> list[str]:
    """Names of the tasks in the folder ``tasks_local`` beside the package, which jobs carry; sorted."""
    return sorted(file.stem for file in LOCAL_FOLDER.glob("*.toml"))


def load_task(name_or_file: str | Path) -> TaskSpec:
    """Read a task that flaretune ships (``"sst2"``), one in ``tasks_local``, or a user's file (ending in ``.toml``).

    Raises:
        UserError: no such task or file, or something in the file is wrong; the message says what is first.
    """
    draft = read_draft(task_file(name_or_file))
    if not draft.problems:
        return draft.task()
    first, *others = draft.problems
    more = f" ({len(others)} more: `python -m flaretune tasks check {draft.file}` lists them)" if others else ""
    raise UserError(f"task file {draft.file}, line {draft.line_of(first)}: {first.sentence}{more}")


@dataclass(frozen=True)
class Draft:
    """A task file as it was read, right or wrong.

    Attributes:
        file: the file.
        text: its contents.
        entries: the fields of `TaskSpec` by name, but for the task's name, in dicts and tuples; None where one could
            not be read.
        problems: everything that is wrong with them.
    """

    file: Path
    text: str
    entries: dict[str, Any]
    problems: tuple[Problem, ...]

    def line_of(self, problem: Problem) -> int:
        """The line, counted from 1, of the key that a problem is about, or of the table where it is missing."""
        return self.line_of_key(problem.where)

    def line_of_key(self, where: tuple[str, ...]) -> int:
        """The same of a key, tables first."""
        return line_of(self.text, where)

    def task(self) -> TaskSpec:
        """The task, which has no problems."""
        return _make_task(self.entries, self.file.stem)


def read_draft(file: Path) -> Draft:
    """Read a task file, with everything that is wrong with its entries.

    Raises:
        UserError: the file cannot be read or is not TOML.
    """
    text, values = read_toml(file, "task file")
    entries, problems = read_entries(values, file.resolve().parent)
    return Draft(file, text, entries, tuple(problems))


def data_beside(file: str | Path) -> str:
    """Where the data of a task's file is on this machine, if the file names it by a path relative to itself; else "".

    Args:
        file: a task's file that `load_task` has read.
    """
    given = read_toml(Path(file).expanduser(), "task file")[1]["source"].get("path", "")
    found = load_task(file).source.path if given and is_beside(given) else None
    return found if found and Path(found).exists() else ""


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
    entries, problems = read_entries(values, folder)
    for problem in problems:
        raise UserError(f"{place}: {problem.sentence}")
    return _make_task(entries, name)


def task_table(spec: TaskSpec) -> dict[str, Any]:
    """What ``parse_task`` reads back as this task, in dicts, lists, strings and ints. Without the name."""
    table = _plain(asdict(spec))
    del table["name"]
    return table


def read_task(task: Mapping[str, Any], kind: str) -> TaskSpec:
    """The task of a saved result, with a source that stands for none.

    Args:
        task: as `tasks.spec.task_table` gives it, with its name and without its data source.
        kind: what messages call the result, such as "prompt file".

    Raises:
        UserError: its parts do not fit together.
        KeyError, TypeError: it has no name.
    """
    if not isinstance(task["name"], str):
        raise TypeError(f"the task's name is {task['name']!r}")
    values = {key: value for key, value in task.items() if key != "name"}
    # a client's paths and data set stay at the client; a task must name some
    source = {"hub": f"none (a {kind} names no data)", "train": "train", "test": "test"}
    return parse_task({**values, "source": source}, task["name"], place=f"the task in the {kind}")


def task_file(name_or_file: str | Path) -> Path:
    """Where a task's file is, by the task's name or the file's.

    Raises:
        UserError: there is no task of that name, or there are two.
    """
    name = str(name_or_file)
    if name.endswith(".toml"):
        return Path(name).expanduser()
    shipped, local = available_tasks(), local_tasks()
    if name in shipped and name in local:
        raise UserError(
            f"task {name!r} is shipped, and {LOCAL_FOLDER / name}.toml has the same name; give yours another"
        )
    if name in local:
        return LOCAL_FOLDER / f"{name}.toml"
    if name in shipped:
        return BUILTIN_FOLDER / f"{name}.toml"
    names = sorted({*shipped, *local})
    hint = near(name, names, "")
    raise UserError(
        f"unknown task {name!r}; {f'{hint} ' if hint else ''}there are {', '.join(names)}, or give the path of a task "
        f"file, which ends in .toml"
    )


def _make_task(entries: Mapping[str, Any], name: str) -> TaskSpec:
    wordings = {kind: entries[kind] and Wording(**entries[kind]) for kind in KINDS}
    return TaskSpec(**{**entries, **wordings, "source": Source(**entries["source"])}, name=name)


def _plain(value: Any) -> Any:
    """Tuples to lists, entries that are None or false left out, at every depth."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None and item is not False}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
