"""Texts without labels that a person gives, to be labelled: on a command line or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flaretune.data.columns import check_whole_characters, read_file
from flaretune.errors import UserError
from flaretune.tasks.spec import TaskSpec


def given_texts(spec: TaskSpec, texts: Sequence[str], place: str = "the command line") -> list[dict[str, str]]:
    """Texts that stand alone, for a task of one text column; `place` is where they are from, for messages.

    Raises:
        UserError: the task has more columns, or a text is empty.
    """
    if len(spec.text_columns) != 1:
        raise UserError(
            f"task {spec.name!r} has the text columns {', '.join(spec.text_columns)}, so a text alone is not enough; "
            "give a CSV, JSONL or Parquet file that has them with --file"
        )
    return _checked([{spec.text_columns[0]: text} for text in texts], place)


def texts_of_file(spec: TaskSpec, path: str | Path) -> list[dict[str, str]]:
    """Texts of a data file with the task's text columns, or, for a task of one, of the lines of a ``.txt`` file.

    Blank lines of a ``.txt`` file are left out.

    Raises:
        UserError: the file cannot be read, lacks a column, or has an empty text or none.
    """
    path = Path(path).expanduser()
    if path.suffix == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); check its path") from error
        return given_texts(spec, [line for line in lines if line.strip()], str(path))
    columns = read_file(path, spec.text_columns)
    rows = zip(*(columns.values[column] for column in spec.text_columns), strict=True)
    return _checked([dict(zip(spec.text_columns, row, strict=True)) for row in rows], columns.place)


def _checked(texts: list[dict[str, str]], place: str) -> list[dict[str, str]]:
    if not texts:
        raise UserError(f"{place} has no text; give at least one")
    for number, columns in enumerate(texts, start=1):
        for column, text in columns.items():
            if not isinstance(text, str) or not text.strip():
                raise UserError(
                    f"text {number} of {place} is {text!r} in column {column!r}; every row needs a text there"
                )
            check_whole_characters(text, f"text {number} of {place}")
    return texts
