"""What the parts of a task must fulfil: each check gives a sentence for everything that is wrong."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flaretune.errors import UserError
from flaretune.tasks.metrics.registry import METRICS
from flaretune.tasks.template import MASK, field_names, split_template

KINDS = ("masked", "causal")
AUTO = "auto"  # as label words: there are none, and the method `verbalizer` learns some
OUT_OF_SCOPE = (
    "flaretune adapts models to classification only, one of a few classes for a text; regression, tagging and "
    "generation are out of its scope"
)
# Metrics of such tasks, by which they can be told.
_OTHER_METRICS = (
    *("bertscore", "bleu", "meteor", "rouge", "perplexity", "wer"),
    *("mae", "mse", "rmse", "pearson", "spearman"),
    *("exact_match", "seqeval"),
)

# The words of a class: one, or several that are scored together.
Words = str | tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a task.

    Attributes:
        where: the key in the task's file, tables first, as in ``("masked", "template")``.
        sentence: what is wrong and what would be right.
    """

    where: tuple[str, ...]
    sentence: str


def label_key(value: Any) -> str:
    """The form in which raw labels are compared, whatever format they come from.

    0, 0.0, "0", "0.0" and " 0 " are the same label; so are true, True, "true" and "TRUE". None and NaN, which some
    formats have where no label is, are "", as it is in CSV.
    """
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    if re.fullmatch(r"-?\d+\.0+", text, re.ASCII):
        return text.partition(".")[0]
    return text.lower() if text.lower() in ("true", "false") else text


def is_score(value: Any) -> bool:
    """Whether a raw label is a number with a fraction, as no class is."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return math.isfinite(number) and not number.is_integer()


def alternatives(words: Words) -> tuple[str, ...]:
    """The words of one class."""
    return (words,) if isinstance(words, str) else words


def needs_label_words(who: str, whose: str = "") -> str:
    """What is said of label words that are `AUTO` where they are needed: by `who`, and `whose` they are."""
    return (
        f'label_words = "auto"{whose} is for the verbalizer method, which learns the words; {who} needs label words: '
        "write one for each class, or run the verbalizer method (jobs/verbalizer_job.py)"
    )


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_list_of(value: Any, is_right: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and all(map(is_right, value))


def task_problems(entries: Mapping[str, Any]) -> Iterator[Problem]:
    """Everything that is wrong with the entries of a task.

    Args:
        entries: the fields of `tasks.spec.TaskSpec` by name, wordings and source as objects with their fields or None.
            What is None could not be read: checks that need it are passed over.
    """
    columns, values = entries["text_columns"], entries["label_values"]
    if columns is not None:
        yield from column_problems(columns, entries["label_column"])
    if values is not None:
        yield from label_problems(values, entries["drop_labels"] or ())
        if entries["metric"] is not None:
            yield from metric_problems(entries["metric"], entries["positive_class"], len(values))
    if entries["source"] is not None:
        yield from source_problems(**entries["source"])
    for kind in KINDS:
        wording = entries[kind] or {}
        if wording.get("template") is not None and columns is not None:
            yield from template_problems(kind, wording["template"], columns)
        if wording.get("templates") is not None and columns is not None:
            every = [wording["template"] or "", *wording["templates"]]
            yield from _twins((kind, "templates"), f"{kind} template and templates", every)
            for further in wording["templates"]:
                yield from template_problems(kind, further, columns, key="templates")
        if wording.get("label_words") not in (None, AUTO) and values is not None:
            yield from word_problems(kind, wording["label_words"], values)


def column_problems(text_columns: Sequence[str], label_column: str | None) -> Iterator[Problem]:
    """Text columns can be fields of a template, and the label is none of them."""
    if not text_columns:
        yield Problem(("text_columns",), "text_columns is empty; name at least one column that holds text")
    yield from _twins(("text_columns",), "text_columns", text_columns)
    for column in text_columns:
        if column == MASK or not column.isidentifier():
            yield Problem(
                ("text_columns",),
                f"text column {column!r} cannot be a field of a template; a name of letters, digits and "
                f"underscores other than 'mask' can",
            )
    if label_column is not None and (not label_column or label_column in text_columns):
        sentence = f"label_column {label_column!r} must be a column that is not a text column"
        yield Problem(("label_column",), sentence)


def label_problems(label_values: Sequence[int | str], drop_labels: Sequence[int | str]) -> Iterator[Problem]:
    """At least two classes, no raw label twice."""
    if len(label_values) < 2:
        sentence = f"label_values {list(label_values)} must name at least two classes"
        yield Problem(("label_values",), sentence)
    kept = [label_key(value) for value in label_values]
    yield from _twins(("label_values",), "label_values", kept)
    for value in drop_labels:
        if label_key(value) in kept:
            sentence = f"label {value!r} is in both label_values and drop_labels; keep it in one"
            yield Problem(("drop_labels",), sentence)


def metric_problems(metric: str, positive_class: int | None, n_classes: int) -> Iterator[Problem]:
    """A known metric, and a positive class exactly where it has a meaning."""
    if metric not in METRICS:
        other = f"; {OUT_OF_SCOPE}" if metric.lower() in _OTHER_METRICS else ""
        yield Problem(("metric",), f"metric {metric!r} is unknown; it must be one of {', '.join(METRICS)}{other}")
    elif not METRICS[metric].needs_positive_class:
        if positive_class is not None:
            yield Problem(("positive_class",), f"positive_class has no meaning for metric {metric!r}; leave it out")
    elif positive_class is None:
        yield Problem(("metric",), f"metric {metric!r} needs positive_class, the id of the class that it is about")
    elif not 0 <= positive_class < n_classes:
        sentence = f"positive_class {positive_class} must be a class id, 0 to {n_classes - 1}"
        yield Problem(("positive_class",), sentence)


def source_problems(
    hub: str | None, config: str | None, path: str | None, train: str | None, test: str | None
) -> Iterator[Problem]:
    """One place of the data, and named splits."""
    if bool(hub) == bool(path):
        which = "both hub and path" if hub else "neither hub nor path"
        yield Problem(("source",), f"[source] has {which}; give one of the two")
    if config and not hub:
        sentence = f"[source] has config {config!r} without hub; leave it out for a local path"
        yield Problem(("source", "config"), sentence)
    if train == "" or test == "":
        key = "train" if train == "" else "test"
        yield Problem(("source", key), "[source] must name its splits in train and test")


def template_problems(
    kind: str, template: str, text_columns: Sequence[str], key: str = "template"
) -> Iterator[Problem]:
    """Fields are text columns, each once; a mask exactly where the model has one."""
    place, where = f"the {kind} template {template!r}", (kind, key)
    try:
        fields = field_names(split_template(template))
    except UserError as error:
        yield Problem(where, str(error))
        return
    yield from _twins(where, place, fields)
    if kind == "masked" and MASK not in fields:
        yield Problem(where, f"{place} lacks {{mask}}, the place of the answer")
    if kind == "causal" and MASK in fields:
        yield Problem(where, f"{place} has {{mask}}; leave it out, a causal model answers behind the end")
    known = ", ".join(text_columns)
    for field in dict.fromkeys(fields):
        if field != MASK and field not in text_columns:
            yield Problem(where, f"{place} has the field {{{field}}}, which is not in text_columns ({known})")
    if not set(fields) - {MASK} and text_columns:
        yield Problem(where, f"{place} uses no text column; put {{{text_columns[0]}}} into it")
    if kind == "causal" and template.endswith(" "):
        yield Problem(
            where,
            f"{place} ends in a blank; move it to the front of the label words, as in ' great', where a tokenizer "
            "expects it",
        )


def word_problems(kind: str, label_words: Sequence[Words], label_values: Sequence[int | str]) -> Iterator[Problem]:
    """One word a class or several, none empty, none twice."""
    where, what = (kind, "label_words"), f"{kind} label_words"
    if len(label_words) != len(label_values):
        yield Problem(
            where,
            f"{what} has {len(label_words)} words for {len(label_values)} classes (label_values "
            f"{list(label_values)}); give one word for each class, or a list of words",
        )
    shown = [word if isinstance(word, str) else list(word) for word in label_words]
    if () in label_words:
        yield Problem(where, f"{what} {shown} has a class without a word; write one")
    words = [word for of_class in label_words for word in alternatives(of_class)]
    for word in words:
        if not word.strip():
            yield Problem(where, f"{what} {shown} has the empty word {word!r}; write one")
    yield from _twins(where, what, words)


def _twins(where: tuple[str, ...], what: str, values: Sequence[str]) -> Iterator[Problem]:
    for value, times in Counter(values).items():
        if times > 1:
            yield Problem(where, f"{what} has {value!r} {times} times; it may stand there once")
