"""What the parts of a task must fulfil, each check with a sentence that says what is wrong."""

from __future__ import annotations

from collections import Counter
from typing import Any

from flaretune.errors import UserError
from flaretune.tasks.template import MASK, field_names, split_template

METRICS = ("accuracy", "f1")


def label_key(value: Any) -> str:
    """The form in which raw labels are compared: 0, 0.0, "0" and " 0 " are the same label."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def check_columns(text_columns: tuple[str, ...], label_column: str) -> None:
    """Text columns can be fields of a template, and the label is none of them."""
    if not text_columns:
        raise UserError("text_columns is empty; name at least one column that holds text")
    _check_no_twins("text_columns", text_columns)
    for column in text_columns:
        if column == MASK or not column.isidentifier():
            raise UserError(
                f"text column {column!r} cannot be a field of a template; a name of letters, digits and "
                f"underscores other than 'mask' can"
            )
    if not label_column or label_column in text_columns:
        raise UserError(f"label_column {label_column!r} must be a column that is not a text column")


def check_labels(label_values: tuple[int | str, ...], drop_labels: tuple[int | str, ...]) -> None:
    """At least two classes, no raw label twice."""
    if len(label_values) < 2:
        raise UserError(f"label_values {list(label_values)} must name at least two classes")
    kept = tuple(label_key(value) for value in label_values)
    _check_no_twins("label_values", kept)
    for value in drop_labels:
        if label_key(value) in kept:
            raise UserError(f"label {value!r} is in both label_values and drop_labels; keep it in one")


def check_metric(metric: str, positive_class: int | None, n_classes: int) -> None:
    """A known metric, and a positive class exactly where it has a meaning."""
    if metric not in METRICS:
        raise UserError(f"metric {metric!r} is unknown; it must be one of {', '.join(METRICS)}")
    if metric != "f1":
        if positive_class is not None:
            raise UserError(f"positive_class has no meaning for metric {metric!r}; leave it out")
    elif positive_class is None:
        raise UserError("metric 'f1' needs positive_class, the id of the class whose F1 is meant")
    elif not 0 <= positive_class < n_classes:
        raise UserError(f"positive_class {positive_class} must be a class id, 0 to {n_classes - 1}")


def check_source(hub: str | None, config: str | None, path: str | None, train: str, test: str) -> None:
    """One place of the data, and named splits."""
    if bool(hub) == bool(path):
        which = "both hub and path" if hub else "neither hub nor path"
        raise UserError(f"[source] has {which}; give one of the two")
    if config and not hub:
        raise UserError(f"[source] has config {config!r} without hub; leave it out for a local path")
    if not train or not test:
        raise UserError("[source] must name its splits in train and test")


def check_template(kind: str, template: str, text_columns: tuple[str, ...]) -> None:
    """Fields are text columns, each once; a mask exactly where the model has one."""
    place = f"the {kind} template {template!r}"
    fields = field_names(split_template(template))
    _check_no_twins(place, tuple(fields))
    if kind == "masked" and MASK not in fields:
        raise UserError(f"{place} lacks {{mask}}, the place of the answer")
    if kind == "causal" and MASK in fields:
        raise UserError(f"{place} has {{mask}}; leave it out, a causal model answers behind the end")
    for field in fields:
        if field != MASK and field not in text_columns:
            raise UserError(
                f"{place} has the field {{{field}}}, which is not in text_columns ({', '.join(text_columns)})"
            )
    if not set(fields) - {MASK}:
        raise UserError(f"{place} uses no text column; put {{{text_columns[0]}}} into it")
    if kind == "causal" and template != template.rstrip():
        raise UserError(
            f"{place} ends in white space; move it to the front of the label words, as in ' great', where a "
            f"tokenizer expects it"
        )


def check_label_words(kind: str, label_words: tuple[str, ...], label_values: tuple[int | str, ...]) -> None:
    """One word a class, none empty, none twice."""
    if len(label_words) != len(label_values):
        raise UserError(
            f"{kind} label_words has {len(label_words)} words for {len(label_values)} classes (label_values "
            f"{list(label_values)}); give one word for each class"
        )
    for word in label_words:
        if not word.strip():
            raise UserError(f"{kind} label_words {list(label_words)} has the empty word {word!r}; write one")
    _check_no_twins(f"{kind} label_words", label_words)


def _check_no_twins(what: str, values: tuple[str, ...]) -> None:
    for value, times in Counter(values).items():
        if times > 1:
            raise UserError(f"{what} has {value!r} {times} times; it may stand there once")
