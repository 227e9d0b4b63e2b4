"""The table of a comparison: a line for each row of its plan, and the columns that the plan asks for."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compare_result import Result
from markdown_table import markdown_table

NONE = "–"


@dataclass(frozen=True)
class Column:
    """A column: its head, a line's cell from its runs and the number of seeds planned, and how to read it.

    With `by_split` there is one of them for each split, otherwise one for the runs of all splits.
    """

    head: str
    cell: Callable[[Sequence[Result], int], str]
    note: str = ""
    by_split: bool = False
    zero_shot: str = NONE  # the cell of the model and template alone


@dataclass(frozen=True)
class Layout:
    """How a comparison is laid out: its rows with the splits each is run on, its splits, its seeds, its columns."""

    rows: Mapping[str, Sequence[str]]
    splits: Sequence[str]
    n_seeds: int
    columns: Sequence[str] = ("parameters", "bytes", "forwards", "memory", "seconds")


def table(layout: Layout, results: Sequence[Result], date: str, machine: str) -> str:
    """The table in Markdown, with sentences on how to read it."""
    columns = [ACCURACY, *(COLUMNS[name] for name in layout.columns)]
    places = [(column, split) for column in columns for split in (layout.splits if column.by_split else [None])]
    heads = [f"{column.head}, {split}" if split else column.head for column, split in places]
    lines = []
    zero_shot = [
        _range([r.zero_shot_accuracy for r in results if r.split == split]) if column is ACCURACY else column.zero_shot
        for column, split in places
    ]
    lines.append(["zero-shot (model and template alone)", *zero_shot])
    for row, splits in layout.rows.items():
        cells = []
        for column, split in places:
            mine = [r for r in results if r.row == row and split in (None, r.split)]
            planned = split is None or split in splits
            cells.append(column.cell(mine, layout.n_seeds) if planned and (mine or column.by_split) else NONE)
        lines.append([row, *cells])
    notes = [column.note.format(n_seeds=layout.n_seeds) for column in columns if column.note]
    if any(r.shared_model for r in results) and COLUMNS["memory"] in columns:
        notes.append("Lines with * use a model server, whose process is not in the memory.")
    notes.append(f"Measured on {machine}; last run {date}.")
    return markdown_table(["", *heads], lines, "lr", " ".join(notes))


def _spread_of(name: str) -> Callable[[Sequence[Result], int], str]:
    """Mean ± sample standard deviation of a number, and how many runs there are if some are missing."""

    def cell(results: Sequence[Result], n_planned: int) -> str:
        values = [value for r in results if (value := getattr(r, name)) is not None]
        missing = f" ({len(values)} of {n_planned} seeds)" if len(values) < n_planned else ""
        if not values:
            return missing.strip()
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.3f}{spread}{missing}"

    return cell


def _agreement(results: Sequence[Result], _: int) -> str:
    shares = [r.soft_label_agreement for r in results if r.soft_label_agreement is not None]
    return f"{100 * statistics.mean(shares):.0f} %" if shares else NONE


def _epsilon(results: Sequence[Result], _: int) -> str:
    told = [r.epsilon for r in results if r.epsilon is not None]
    return f"{max(told):,.1f}" if told else NONE


def _parameters(results: Sequence[Result], _: int) -> str:
    return f"{results[0].parameters:,}{' searched' if results[0].method == 'FedBPT' else ''}"


def _bytes(results: Sequence[Result], _: int) -> str:
    names = ("bytes_down_per_client_round", "bytes_up_per_client_round")
    return " + ".join(size(statistics.mean(getattr(r, name) for r in results)) for name in names)


def _forwards(results: Sequence[Result], _: int) -> str:
    return f"{statistics.mean(r.example_forwards for r in results):,.0f}" if _told(results) else NONE


def _memory(results: Sequence[Result], _: int) -> str:
    most = f"{max(r.memory_mb for r in results):,.0f}{' *' if results[0].shared_model else ''}"
    return most if _told(results) else NONE


def _seconds(results: Sequence[Result], _: int) -> str:
    return f"{min(r.seconds for r in results):,.0f}"


def _told(results: Sequence[Result]) -> bool:
    """Whether clients told what they spent: with noise they do not."""
    return all(r.epsilon is None for r in results)


def _range(values: Sequence[float]) -> str:
    """Zero-shot accuracy of the same texts, which differs as far as they are grouped into other batches."""
    return " to ".join(sorted({f"{value:.3f}" for value in (min(values), max(values))})) if values else NONE


def size(n_bytes: float) -> str:
    """Bytes with three digits, in B, kB, MB or GB (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.5 or unit == "GB":
            break
        n_bytes /= 1000
    return f"{float(f'{n_bytes:.3g}'):g} {unit}"


ACCURACY = Column(
    "accuracy",
    _spread_of("test_accuracy"),
    "Accuracy on test data of the round chosen on the validation set: mean ± sample standard deviation over {n_seeds} "
    "seeds.",
    by_split=True,
)
COLUMNS = {  # by the names that a plan's `columns` may hold
    "last": Column("after the last round", _spread_of("last_accuracy"), by_split=True),
    "agreement": Column(
        "correct soft labels",
        _agreement,
        "Correct soft labels: as the hidden labels have it, after the last round; mean.",
    ),
    "epsilon": Column(
        "ε",
        _epsilon,
        "ε: the most of a line; with noise the accuracy is that of the last round, and clients do not report what "
        "they spent.",
    ),
    "parameters": Column("trained parameters", _parameters, zero_shot="0"),
    "bytes": Column("bytes per client and round, down + up", _bytes, "Bytes: mean of a line's runs."),
    "forwards": Column(
        "example-forwards",
        _forwards,
        "Example-forwards: examples sent through the model, all clients and rounds; mean.",
    ),
    "memory": Column("memory per client, MiB", _memory, "Memory: one client's process, the most of a line."),
    "seconds": Column(
        "seconds",
        _seconds,
        "Seconds: whole job, the fewest of a line, since what else runs on a machine can only slow a job.",
    ),
}
