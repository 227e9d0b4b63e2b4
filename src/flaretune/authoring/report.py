"""What `tasks check` finds out about a task file, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from flaretune.tasks.metrics.registry import value_text


@dataclass(frozen=True)
class Mistake:
    """Something that is wrong.

    Attributes:
        file: where it is to be set right; empty for what was given on the command line.
        line: of the file, counted from 1; None for what is wrong with all of it.
        sentence: what is wrong and what would be right.
    """

    file: str
    line: int | None
    sentence: str

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part)
        return f"{place}: {self.sentence}" if place else self.sentence


@dataclass(frozen=True)
class LabelWord:
    """A label word as a model's tokenizer has it; token and id are None for one that is not one token."""

    label: int | str
    word: str
    token: str | None
    token_id: int | None


@dataclass(frozen=True)
class ModelReport:
    """A model with the task.

    Attributes:
        name: hub id or folder.
        kind: masked or causal.
        mode: where the prompt goes.
        n_prompt_tokens: its length.
        limit: the most tokens that the model takes.
        words: of all classes.
    """

    name: str
    kind: str
    mode: str
    n_prompt_tokens: int
    limit: int
    words: tuple[LabelWord, ...]


@dataclass(frozen=True)
class Lengths:
    """Tokens that the texts of a file take, each with template and prompt, before any is cut.

    Attributes:
        texts: how many were measured: all, or some thousand evenly over them.
        percentiles: by what is asked for, such as 50, the length that so many per cent of the texts do not exceed.
        longest: of all.
        limit: what the model takes.
        cut: how many texts lose their ends.
    """

    texts: int
    percentiles: dict[int, int]
    longest: int
    limit: int
    cut: int


@dataclass(frozen=True)
class DataReport:
    """A split of the data with the task.

    Attributes:
        place: where it lies.
        split: train or test; all for data in one file.
        rows: all of them.
        by_class: rows of each class, by raw label.
        dropped: rows whose label the task drops.
        lengths: None where no model was given.
    """

    place: str
    split: str
    rows: int
    by_class: dict[str, int]
    dropped: int
    lengths: Lengths | None = None


@dataclass(frozen=True)
class Report:
    """All of it.

    Attributes:
        file: the task file.
        name: of the task.
        description: the file's.
        mistakes: in the order of the file, then those of the data.
        model: None where none was given, or it could not be used.
        data: the splits that were looked at.
        examples: as the model gets them: the prompt's place as {prompt: n}, the answer's as <<the right word>>.
        zero_shot: metric, value and what is right by class, of model and template alone, where it was asked for.
    """

    file: str
    name: str
    description: str
    mistakes: tuple[Mistake, ...]
    model: ModelReport | None = None
    data: tuple[DataReport, ...] = ()
    examples: tuple[str, ...] = ()
    zero_shot: dict[str, Any] | None = field(default=None)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values, with `ok` for a file without a mistake."""
        return {"ok": not self.mistakes, **asdict(self)}


def report_lines(report: Report) -> Iterator[str]:
    """The report for a person, without its mistakes."""
    yield f"task {report.name} ({report.file})" + (f": {report.description}" if report.description else "")
    model = report.model
    if model is not None:
        yield (
            f"model {model.name}: {model.kind}, at most {model.limit} tokens; a prompt of {model.n_prompt_tokens} in "
            f"mode {model.mode}"
        )
        width = max((len(repr(word.word)) for word in model.words), default=0)
        for word in model.words:
            token = "-" if word.token_id is None else f"{word.token} ({word.token_id})"
            yield f"  label {word.label!s:<6} {word.word!r:<{width}}  token {token}"
    for data in report.data:
        yield from _data_lines(data)
    for number, example in enumerate(report.examples, start=1):
        yield f"example {number}: {example}"
    if report.zero_shot is not None:
        found = report.zero_shot
        right = ", ".join(f"{label} {right} of {n}" for label, (right, n) in found["by_class"].items())
        yield f"zero-shot {value_text(found['metric'], found['value'])} on {found['n']} texts; right: {right}"


def _data_lines(data: DataReport) -> Iterator[str]:
    dropped = f", {data.dropped} dropped" if data.dropped else ""
    counts = ", ".join(f"{label}: {count}" for label, count in data.by_class.items())
    yield f"{data.split} data {data.place}: {data.rows} rows{dropped}" + (f"; {counts}" if counts else "")
    if data.split != "test" and data.by_class:
        yield f"  --k_shot can be {min(data.by_class.values()) // 2} at the most"
    if data.lengths is not None:
        lengths = data.lengths
        shares = ", ".join(f"{share} % up to {length}" for share, length in lengths.percentiles.items())
        cut = f"{lengths.cut} texts are cut" if lengths.cut else "no text is cut"
        measured = "" if lengths.texts >= sum(data.by_class.values()) else f" ({lengths.texts} texts measured)"
        yield f"  tokens of a text with template and prompt{measured}: {shares}, the longest {lengths.longest}; {cut}"
