"""Writing a task file from a few values: given by options, or on a terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from flaretune.authoring.inputs import Inputs
from flaretune.data.columns import READERS
from flaretune.data.places import LocalSplit, find_split, is_one_set
from flaretune.errors import UserError
from flaretune.tasks.checks import (
    AUTO,
    OUT_OF_SCOPE,
    Problem,
    alternatives,
    column_problems,
    is_score,
    label_key,
    label_problems,
    template_problems,
    word_problems,
)
from flaretune.tasks.spec import read_draft

MOST_CLASSES = 150
MANY_CLASSES = 50  # more have two rows each at least, or the column is no label
LABEL_COLUMNS = ("label", "class", "category", "target")  # names that are suggested
TEST_SPLITS = ("test", "validation", "valid", "dev")


def write_task(file: Path, data: str, given: Mapping[str, str], read_line: Callable[[str], str] | None) -> Path:
    """Write a task file.

    Args:
        file: to write, ending in .toml.
        data: a data file, or a folder of train and test data.
        given: values by the names of ``FLAGS``.
        read_line: reads one that is not given from a person, as `input` does; None takes what is suggested.

    Raises:
        UserError: the file is there already, the data cannot be read, or a value is missing or wrong.
    """
    check_new(file)
    return save_task(file, task_text(file.absolute().parent, data, given, read_line))


def check_new(file: Path) -> None:
    """Check the place of a task file that is to be written.

    Raises:
        UserError: its name does not end in .toml, or it is there already.
    """
    if file.suffix != ".toml":
        raise UserError(f"{file}: a task file's name ends in .toml")
    if file.exists():
        raise UserError(f"{file} is there already; give another name, or remove it first")


def task_text(folder: Path, data: str, given: Mapping[str, str], read_line: Callable[[str], str] | None) -> str:
    """What `write_task` writes; `folder` is where the file is to be."""
    training, source = _find_source(Path(data).expanduser(), folder)
    columns = training.column_names()
    inputs = Inputs(given, read_line)

    suggested = next((column for column in columns if column.lower() in LABEL_COLUMNS), None)
    label_column = inputs.value("label_column", suggested, lambda text: _column(text, columns))
    others = [column for column in columns if column != label_column]
    suggested = others[0] if len(others) == 1 else None
    text_columns = inputs.value("text_columns", suggested, lambda text: _text_columns(text, columns, label_column))
    there = _values_of(training, label_column)
    label_values = inputs.value("label_values", _joined(there), lambda text: _label_values(text, there))
    are_words = label_values and all(re.fullmatch(r"[^\W\d_]+", value) for value in label_values)
    suggested = _joined(label_values) if are_words else AUTO
    words = inputs.value("label_words", suggested, lambda text: _label_words(text, label_values))
    texts = " ".join(f"{{{column}}}" for column in text_columns or ())
    masked = inputs.value(
        "masked_template", f"{texts} . It was {{mask}} .", lambda text: _template("masked", text, text_columns or ())
    )
    causal = inputs.value(
        "causal_template", _causal_of(masked, texts), lambda text: _template("causal", text, text_columns or ())
    )
    description = inputs.value("description", "", lambda text: text)
    inputs.stop_if_missing()
    if not masked and not causal:
        raise UserError("--masked_template none --causal_template none: a task needs at least one template")

    values = [int(value) if _is_number(value) else value for value in label_values]
    lines = [
        *([f"description = {_toml(description)}"] if description else []),
        f"text_columns = {_toml(text_columns)}",
        f"label_column = {_toml(label_column)}",
        f"label_values = {_toml(values)} # of class 0, 1, …",
        'metric = "accuracy" # or "macro_f1", or "f1" with positive_class = 1 for that of class 1',
    ]
    for kind, template in (("masked", masked), ("causal", causal)):
        if template:
            lines += [
                "",
                f"[{kind}]",
                f"template = {_toml(template)}",
                f"label_words = {_toml(AUTO if words == AUTO else _behind(template, words))}",
            ]
    return "\n".join([*lines, "", "[source]", *source]) + "\n"


def save_task(file: Path, text: str) -> Path:
    """Write what `task_text` gave; returns the file."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); give another place") from error
    for problem in read_draft(file).problems:  # which the values' own checks leave none of
        raise UserError(f"{file}: {problem.sentence}")
    return file


def _find_source(data: Path, folder: Path) -> tuple[LocalSplit, list[str]]:
    """Find training and test data; and the lines that say where they are, as seen from `folder` if below it."""
    if not data.exists():
        raise UserError(f"--data {data} does not exist; give a data file, or a folder of train and test data")
    if data.is_file() and data.suffix not in READERS:
        raise UserError(f"--data {data} has no known format; its name must end in {', '.join(READERS)}")
    own_folder = data.parent if is_one_set(data) else data
    test = next((name for name in TEST_SPLITS if _has_split(own_folder, name)), None)
    if not is_one_set(data) or (data.stem == "train" and test):
        training = find_split(own_folder, "train")
        if test is None:
            raise UserError(
                f"--data {data} has no test data, such as test.csv; give its training file to test on a part"
            )
        path = _toml(_seen_from(folder, own_folder))
        return training, [f"path = {path}", 'train = "train"', f"test = {_toml(test)}"]
    remark = " # without splits: what is not drawn from it to train and develop with is the test data"
    path = _toml(_seen_from(folder, data))
    return LocalSplit((data,)), [f"path = {path}{remark}", 'train = "train"', 'test = "test"']


def _has_split(folder: Path, name: str) -> bool:
    try:
        find_split(folder, name)
    except UserError:
        return False
    return True


def _seen_from(folder: Path, path: Path) -> str:
    path, folder = path.resolve(), folder.resolve()
    return os.path.relpath(path, folder) if path.is_relative_to(folder) else str(path)


def _values_of(training: LocalSplit, label_column: str | None) -> list[str]:
    """The different raw labels, numbers in their order."""
    if label_column is None:
        return []
    labels = [key for value in training.read([label_column]).values[label_column] if (key := label_key(value))]
    values = set(labels)
    if len(values) < 2:
        there = f"one value alone, {min(values)!r}" if values else "no values"
        raise UserError(f"column {label_column!r} has {there}; a task needs texts of at least two classes")
    some = f"column {label_column!r} has {len(values)} different values such as {', '.join(sorted(values)[:3])}"
    if any(map(is_score, values)) or (len(values) > MANY_CLASSES and 2 * len(values) > len(labels)):
        raise UserError(f"{some}; {OUT_OF_SCOPE}")
    if len(values) > MOST_CLASSES:
        raise UserError(
            f"{some}; tasks of up to {MOST_CLASSES} classes are tested: write broader classes into that column, or the "
            "task file by hand"
        )
    return sorted(values, key=lambda value: (not _is_number(value), int(value) if _is_number(value) else 0, value))


def _column(text: str, columns: list[str]) -> str:
    if text not in columns:
        raise UserError(f"there is no column {text!r}; there are {', '.join(columns)}")
    return text


def _text_columns(text: str, columns: list[str], label_column: str | None) -> list[str]:
    chosen = [_column(part, columns) for part in _parts(text)]
    _raise_first(column_problems(chosen, label_column))
    return chosen


def _label_values(text: str, there: list[str]) -> list[str]:
    values = _parts(text)
    _raise_first(label_problems(values, ()))
    for value in values:
        if label_key(value) not in there:
            raise UserError(f"no row has the label {value!r}; there are {', '.join(there)}")
    return values


def _label_words(text: str, label_values: list[str] | None) -> list[tuple[str, ...]] | str:
    if text in ("", AUTO):
        return AUTO
    words = [tuple(word.strip() for word in part.split("/")) for part in _parts(text)]
    if label_values is not None:
        _raise_first(word_problems("the", words, label_values))
    return words


def _template(kind: str, text: str, text_columns: list[str]) -> str:
    if text in ("", "none"):
        return ""
    if text_columns:
        _raise_first(template_problems(kind, text, text_columns))
    return text


def _causal_of(masked: str | None, texts: str) -> str:
    """The masked template up to its mask, if nothing but punctuation follows there."""
    before, _, behind = (masked or "").partition("{mask}")
    return before.rstrip() if before.strip() and not re.search(r"[\w{]", behind) else f"{texts} Answer:"


def _behind(template: str, words: list[tuple[str, ...]] | None) -> list[str | list[str]]:
    """Label words as they stand at the answer position: behind a blank, but for the start of a text or line."""
    before, mask, _ = template.partition("{mask}")
    blank = "" if (mask and not before) or before.endswith("\n") else " "
    written = [[f"{blank}{word}" for word in alternatives(of_class)] for of_class in words or ()]
    return [of_class[0] if len(of_class) == 1 else of_class for of_class in written]


def _parts(text: str) -> list[str]:
    rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    return [part.strip() for row in rows for part in row if part.strip()]


def _joined(parts: Iterable[str]) -> str:
    """As `_parts` reads them: what has a comma or a line break stands in double quotes."""
    return ",".join('"' + part.replace('"', '""') + '"' if set(',"\r\n') & set(part) else part for part in parts)


def _raise_first(problems: Iterable[Problem]) -> None:
    for problem in problems:
        raise UserError(problem.sentence)


def _is_number(value: str) -> bool:
    return re.fullmatch(r"-?(0|[1-9]\d*)", value) is not None


def _toml(value: Any) -> str:
    """A text, number or list of them in TOML, which writes these as JSON does."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
