"""What a task file is made of: values given by options, by a person on a terminal, or as they are suggested."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from flaretune.data.columns import check_whole_characters
from flaretune.errors import UserError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Flag:
    """An option, and what a terminal shows where it is not given."""

    metavar: str
    help: str
    question: str


FLAGS = {
    "text_columns": Flag("A,B", "columns that hold text", "Which columns hold text"),
    "label_column": Flag("NAME", "column of the label", "Which column is the label"),
    "label_values": Flag("A,B", "its values, one for each class", "Its values, one for each class"),
    "label_words": Flag(
        "A,B",
        "a word for each class, in that order; A1/A2,B for several; auto for none: the method verbalizer learns them",
        "A word for each of these classes, or auto to have them learned",
    ),
    "masked_template": Flag(
        "TEXT", "for RoBERTa, BERT, …, with {mask} for the word; none for no such models", "Template for masked models"
    ),
    "causal_template": Flag(
        "TEXT", "for LLaMA, Gemma, …: the word comes behind it; none for no such models", "Template for causal models"
    ),
    "description": Flag("TEXT", "what the task is about, one sentence", "What the task is about, in a few words"),
}


class Inputs:
    """Takes values from options, from a person, or as they are suggested."""

    def __init__(self, given: Mapping[str, str], read_line: Callable[[str], str] | None):
        self._given = given
        self._read_line = read_line
        self._missing: list[str] = []

    def value(self, name: str, suggested: str | None, read: Callable[[str], Value]) -> Value | None:
        """One value, read; None where it is missing, or follows from one that is."""
        if name in self._given:
            check_whole_characters(self._given[name], f"--{name}")
            try:
                return read(self._given[name])
            except UserError as error:
                raise UserError(f"--{name} {self._given[name]}: {error}") from error
        if self._read_line is None:
            if suggested is None:
                self._missing.append(name)
            return None if self._missing else read(suggested)
        while True:
            shown = f" [{suggested}]" if suggested else ""
            try:
                text = self._read_line(f"{FLAGS[name].question}{shown}: ").strip() or (suggested or "")
                return read(text)
            except EOFError as error:
                raise UserError(f"no value for --{name}; nothing was written") from error
            except UserError as error:
                print(f"  {error}")

    def stop_if_missing(self) -> None:
        """Raise a `UserError` that names all values that are missing."""
        if self._missing:
            flags = ", ".join(f"--{name}" for name in self._missing)
            raise UserError(f"give {flags}, or run this on a terminal to be prompted")
