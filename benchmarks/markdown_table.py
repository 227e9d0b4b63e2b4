"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean, stdev

MARKS = {"l": "---", "r": "--:"}


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation, as a cell has it; of one value, that."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], align: str, note: str) -> str:
    """A table with a paragraph below.

    Args:
        heads: of the columns.
        rows: a cell for each column.
        align: for each column, l(eft) or r(ight); the last letter goes for all that follow.
        note: the paragraph.
    """
    marks = [MARKS[letter] for letter in align.ljust(len(heads), align[-1])]
    return "\n".join([*("| " + " | ".join(cells) + " |" for cells in (heads, marks, *rows)), "", note])
