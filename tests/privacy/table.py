"""The table of docs/operations/privacy.md, for the tests that hold it against messages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parents[2] / "docs" / "operations" / "privacy.md"


@dataclass(frozen=True)
class Row:
    """A line of the table; `message` is all, evaluation, initialize or fit."""

    message: str
    field: str
    kind: str
    with_noise: str


def rows() -> list[Row]:
    """The lines of the table."""
    found = []
    for line in FILE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and re.fullmatch(r"`[a-z_.]+`", cells[1]):
            found.append(Row(cells[0], cells[1].strip("`"), cells[2], cells[4]))
    return found
