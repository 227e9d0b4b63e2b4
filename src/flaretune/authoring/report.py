"""What `tasks check` finds out about a task file, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from flaretune.methods.registry import METHODS
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
        percentiles: by share, such as 50, the length that so many per cent of the texts do not exceed.
        cut: how many texts lose their ends.
    """

    texts: int
    percentiles: dict[int, int]
    longest: int
    limit: int
    cut: int


@dataclass
class DataReport:
    """A split of the data with the task.

    Attributes:
        split: train or test; all for data in one file.
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
class LearnedWord:
    """A word, as the tokenizer decodes it.

    Attributes:
        separation: between-class over within-class variance of its log-probability, of one class against the others.
    """

    word: str
    separation: float


@dataclass(frozen=True)
class LearnedWords:
    """What a learned verbalizer finds on a few texts.

    Attributes:
        texts: of each class, by raw label.
        by_class: the best words of each class, by raw label.
    """

    texts: dict[str, int]
    templates: int
    candidates: int
    by_class: dict[str, tuple[LearnedWord, ...]]


@dataclass
class Report:
    """All of it.

    Attributes:
        mistakes: in the order of the file, then those of the data.
        model: None where none was given, or it could not be used.
        examples: as the model gets them, with {prompt: n} and <<the correct word>> in their places.
        auto: whether the task names no label words, for no kind of model.
        learned: what the method `verbalizer` finds, where it is for that one and there are a model and data.
        zero_shot: metric, value and correct predictions by class, of model and template alone, where it was measured.
    """

    file: str
    name: str
    description: str
    mistakes: tuple[Mistake, ...] = ()
    model: ModelReport | None = None
    data: tuple[DataReport, ...] = ()
    examples: tuple[str, ...] = ()
    auto: bool = False
    learned: LearnedWords | None = None
    zero_shot: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values, with `ok` for a file without a mistake."""
        return {"ok": not self.mistakes, **asdict(self)}


def report_lines(report: Report) -> Iterator[str]:
    """The report for a person, without its mistakes."""
    yield f"task {report.name} ({report.file})" + (f": {report.description}" if report.description else "")
    if report.auto:
        yield about_auto()
    model = report.model
    if model is not None:
        prompt = f"; a prompt of {model.n_prompt_tokens} in mode {model.mode}" if model.n_prompt_tokens else ""
        yield f"model {model.name}: {model.kind}, at most {model.limit} tokens{prompt}"
        width = max((len(repr(word.word)) for word in model.words), default=0)
        for word in model.words:
            token = "-" if word.token_id is None else f"{word.token} ({word.token_id})"
            yield f"  label {word.label!s:<6} {word.word!r:<{width}}  token {token}"
    around = "template and prompt" if model and model.n_prompt_tokens else "template"
    for data in report.data:
        yield from _data_lines(data, around)
    for number, example in enumerate(report.examples, start=1):
        yield f"example {number}: {example}"
    if report.auto and model is not None and not report.data:
        yield "with --data the words are shown that it learns from a few of the texts"
    if report.learned is not None:
        yield from _learned_lines(report.learned)
    if report.zero_shot is not None:
        found = report.zero_shot
        right = ", ".join(f"{label} {right} of {n}" for label, (right, n) in found["by_class"].items())
        yield f"zero-shot {value_text(found['metric'], found['value'])} on {found['n']} texts; right: {right}"


def about_auto() -> str:
    """What is to be known of a task whose label words are "auto"."""
    others = " and ".join(method.title for method in METHODS.values() if method.client_config.needs_label_words)
    return (
        'label_words = "auto": the verbalizer method (jobs/verbalizer_job.py) learns the words; '
        f"{others} need label words and refuse the task"
    )


def _learned_lines(learned: LearnedWords) -> Iterator[str]:
    texts = ", ".join(f"{label}: {count}" for label, count in learned.texts.items())
    templates = "1 template" if learned.templates == 1 else f"{learned.templates} templates"
    yield (
        f"words of a learned verbalizer, of {learned.candidates} candidates by {sum(learned.texts.values())} texts "
        f"({texts}) in {templates}; in brackets the between-class over within-class variance"
    )
    for label, words in learned.by_class.items():
        yield f"  label {label!s:<6} " + (", ".join(f"{w.word!r} ({w.separation:.3g})" for w in words) or "none")


def _data_lines(data: DataReport, around: str) -> Iterator[str]:
    dropped = f", {data.dropped} dropped" if data.dropped else ""
    by_class = ", ".join(f"{label}: {count}" for label, count in data.by_class.items())
    yield f"{data.split} data {data.place}: {data.rows} rows{dropped}" + (f"; {by_class}" if by_class else "")
    if data.split != "test" and data.by_class:
        counts = data.by_class.values()
        most = min(counts) // 2
        if data.split == "all" and 2 * most * len(counts) == sum(counts):
            most -= 1  # which leaves some of the one file to test on
        if most < 1:
            yield "  too few rows for a job: it takes two of every class, and some to test on"
        else:
            yield f"  --k_shot can be {most} at the most"
    if data.lengths is not None:
        lengths = data.lengths
        shares = ", ".join(f"{share} % up to {length}" for share, length in lengths.percentiles.items())
        cut = f"{lengths.cut} texts are cut" if lengths.cut else "no text is cut"
        measured = "" if lengths.texts >= sum(data.by_class.values()) else f" ({lengths.texts} texts measured)"
        yield f"  tokens of a text with {around}{measured}: {shares}, the longest {lengths.longest}; {cut}"
