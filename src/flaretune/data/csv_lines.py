"""CSV as people have it: the standard, and what differs from it in ways that leave one reading; else what is wrong."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

csv.field_size_limit(2**31 - 1)  # its default refuses a text of more than 131,072 characters
_SHOWN = 60  # characters of a line in a message
_QUOTING = "put every text in double quotes and double those inside it"


@dataclass(frozen=True)
class CsvLines:
    """Lines of a CSV file without blank ones, the header first, and what is wrong with the row behind them, or ""."""

    lines: list[list[str]]
    problem: str = ""

    @property
    def header(self) -> list[str]:
        return self.lines[0] if self.lines else []


def read_csv_lines(path: Path) -> CsvLines:
    """Read standard CSV, and what differs from it in ways that leave one reading: Spark's backslash before a quote in
    a text, blanks before the quote at a text's start, and a comma at the end of every line."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        text = stream.read()
    standard = _with_blanks_before_quotes(text, path)
    if '\\"' not in text:
        return standard
    spark = _with_blanks_before_quotes(re.sub(r'(?<!\\)\\"', '""', text), path)
    if standard.problem and spark.problem:
        return max(standard, spark, key=lambda reading: len(reading.lines))
    if spark.problem or standard == spark:
        return standard
    # where it fits the standard too, or a backslash may stand for itself or for the quote behind it, nobody can tell
    pairs = zip_longest(standard.lines if not standard.problem else spark.lines, spark.lines)
    for number, (line, other) in enumerate(pairs):
        if line != other or any("\\\\" in value for value in other or ()):
            begin = ",".join(line or ())[:_SHOWN]
            sentence = f"{_row(number, path, begin)} may be read in two ways, since it has a backslash before a quote"
            return CsvLines(spark.lines[:number], f"{sentence}; save the data as JSONL or Parquet")
    return spark


def _with_blanks_before_quotes(text: str, path: Path) -> CsvLines:
    """Read a file in which a text's opening quote may stand behind blanks; other blanks stay, where there are none."""
    plain = _parse_csv(text, path)
    if ' "' not in text:
        return plain
    skipped = _parse_csv(text, path, skipinitialspace=True)
    same = [[value.lstrip(" ") for value in line] for line in plain.lines] == [
        [value.lstrip(" ") for value in line] for line in skipped.lines
    ]
    return plain if same else skipped


def _parse_csv(text: str, path: Path, **dialect: bool) -> CsvLines:
    physical = list(io.StringIO(text, newline=""))
    reader = csv.reader(physical, strict=True, **dialect)
    lines: list[list[str]] = []
    while True:
        start = reader.line_num
        try:
            line = next(reader)
        except StopIteration:
            break
        except csv.Error:  # which are of quotes alone, in this dialect
            begin = physical[start].strip()[:_SHOWN]
            sentence = f"{_row(len(lines), path, begin)} has a double quote inside a text, or one that is never closed"
            return CsvLines(lines, f"{sentence}; {_QUOTING}")
        lines += [line] if line else []
    if not lines:
        return CsvLines(lines)
    header, *rows = lines
    width = len(header)
    if rows and all(len(row) == width + 1 and not row[-1] for row in rows):
        rows = [row[:-1] for row in rows]
    elif rows and not header[-1] and all(len(row) == width - 1 for row in rows):
        header = header[:-1]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            comma = "" if row[-1] else ", or remove the comma at its end"
            return CsvLines(
                [header, *rows[: number - 1]],
                f"row {number} of {path} has {len(row)} values for {len(header)} columns; put texts that contain "
                f"commas in double quotes{comma}",
            )
    return CsvLines([header, *rows])


def _row(number: int, path: Path, begin: str) -> str:
    return f"{f'row {number}' if number else 'the header'} of {path}, which begins with {begin!r},"
