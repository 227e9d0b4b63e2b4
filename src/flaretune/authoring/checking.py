"""What is found wrong with a task file, and how its columns and labels are held against data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flaretune.authoring.report import DataReport, Mistake
from flaretune.data.load import Examples
from flaretune.data.places import LocalSplit
from flaretune.tasks.checks import OUT_OF_SCOPE, is_score, label_key
from flaretune.tasks.spec import Draft, TaskSpec


@dataclass(frozen=True)
class Rows:
    """The rows of a split that can be used, with the labels as they stand in the data."""

    texts: list[dict[str, str]]
    labels: tuple[Any, ...]

    def examples(self, spec: TaskSpec) -> Examples:
        """Those of a task that the file is of."""
        class_ids = {label_key(value): class_id for class_id, value in enumerate(spec.label_values)}
        labels = np.array([class_ids[label_key(label)] for label in self.labels], dtype=np.int64)
        return Examples(tuple(self.texts), labels)


class Checking:
    """A draft, and the mistakes that have been found."""

    def __init__(self, draft: Draft):
        self.draft = draft
        self._in_file = [(draft.line_of(problem), problem.sentence) for problem in draft.problems]
        self._elsewhere: list[Mistake] = []

    def note(self, where: Sequence[str], sentence: str) -> None:
        """Something to set right in the task file, at a key."""
        self._in_file.append((self.draft.line_of_key(tuple(where)), sentence))

    def note_given(self, sentence: str) -> None:
        """Something to set right on the command line."""
        self._elsewhere.append(Mistake("", None, sentence))

    def mistakes(self) -> tuple[Mistake, ...]:
        """All of them, those in the task file first, in its order."""
        file = str(self.draft.file)
        ordered = dict.fromkeys(sorted(self._in_file, key=lambda found: found[0]))
        return (*(Mistake(file, line, sentence) for line, sentence in ordered), *dict.fromkeys(self._elsewhere))

    def is_fine(self, *keys: tuple[str, ...]) -> bool:
        """Whether nothing is wrong with these entries by themselves."""
        return not any(problem.where in keys for problem in self.draft.problems)

    def read(self, split: str, local: LocalSplit) -> tuple[DataReport, Rows]:
        """Hold the columns of a split against the task, and count."""
        entries, place = self.draft.entries, local.place
        names = local.column_names()
        text_columns, label_column = entries["text_columns"] or (), entries["label_column"]
        for key, column in (*(("text_columns", c) for c in text_columns), ("label_column", label_column)):
            if column is not None and column not in names:
                self.note((key,), f"{place} has no column {column!r}; its columns are {', '.join(names)}")
        wanted = [column for column in (*text_columns, label_column) if column in names]
        values = local.read(wanted).values
        n_rows = len(next(iter(values.values()), []))
        texts = [column for column in text_columns if column in names]
        self._note_empty(place, texts, values)
        if label_column not in names or entries["label_values"] is None:
            return DataReport(place, split, n_rows, {}, 0), Rows([], ())

        label_values = entries["label_values"]
        dropped = {label_key(value) for value in entries["drop_labels"] or ()}
        raw = values[label_column]
        counts = Counter(map(label_key, raw))
        classes = {*map(label_key, label_values)}
        self._note_unknown(place, raw, classes | dropped)
        by_class = {str(value): counts[label_key(value)] for value in label_values}
        if split != "test":
            for label, count in by_class.items():
                if not count:
                    self.note(("label_values",), f"no row of {place} has the label {label!r}")
        usable = [
            row
            for row in range(n_rows)
            if label_key(raw[row]) in classes and all(_is_text(values[column][row]) for column in texts)
        ]
        complete = len(texts) == len(text_columns)
        rows = Rows(
            [{column: values[column][row] for column in texts} for row in usable] if complete else [],
            tuple(raw[row] for row in usable) if complete else (),
        )
        n_dropped = sum(counts[key] for key in dropped)
        return DataReport(place, split, n_rows, by_class, n_dropped), rows

    def _note_empty(self, place: str, columns: Sequence[str], values: dict[str, list[Any]]) -> None:
        dropped = {label_key(value) for value in self.draft.entries["drop_labels"] or ()}
        labels = values.get(self.draft.entries["label_column"])
        for column in columns:
            empty = [row for row, text in enumerate(values[column], start=1) if not _is_text(text)]
            empty = [row for row in empty if labels is None or label_key(labels[row - 1]) not in dropped]
            if empty:
                sentence = f"{_rows(empty)} no text in column {column!r}; every row needs one"
                self._elsewhere.append(Mistake(place, None, sentence))

    def _note_unknown(self, place: str, raw: Sequence[Any], known: set[str]) -> None:
        rows_of: dict[str, list[int]] = {}
        for row, value in enumerate(raw, start=1):
            if label_key(value) not in known:
                rows_of.setdefault(label_key(value), []).append(row)
        scores = [value for value in rows_of if is_score(value)]
        if scores:
            sentence = f"{place} has labels such as {scores[0]}, which are numbers and no classes; {OUT_OF_SCOPE}"
            self.note(("label_column",), sentence)
        others = [value for value in rows_of if value not in scores]
        for value in others[:5]:
            sentence = f"{place}: {_rows(rows_of[value])} the label {value!r}, which is in neither list of labels"
            self.note(("label_values",), f"{sentence}; write it into label_values or drop_labels")
        if len(others) > 5:
            self.note(("label_values",), f"{place} has {len(others) - 5} more labels that are in neither list")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _rows(numbers: Sequence[int]) -> str:
    """ "row 3 has" or "3 rows (3, 8, 9) have"."""
    if len(numbers) == 1:
        return f"row {numbers[0]} has"
    shown = ", ".join(map(str, numbers[:3])) + (", …" if len(numbers) > 3 else "")
    return f"{len(numbers)} rows ({shown}) have"
