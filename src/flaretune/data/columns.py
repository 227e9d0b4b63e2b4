"""Reading the columns of a local file or of a hub's data set, as they are.

Local files are read here and not by the ``datasets`` library: its CSV reader takes a text such as "NA" or
"null" for a missing value and guesses types file by file, and it keeps a converted copy on disk. Here a text
stays the text that was written, and what is read is always what the file holds now.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flaretune.data.csv_lines import read_csv_lines
from flaretune.errors import UserError, shown


@dataclass(frozen=True)
class Columns:
    """Some columns of a data set, in row order.

    Attributes:
        place: what messages call the data set.
        values: column → its values, all of one length; an absent value is None.
    """

    place: str
    values: dict[str, list[Any]]


def read_file(path: Path, wanted: Sequence[str]) -> Columns:
    """Read columns of a ``.csv``, ``.jsonl``, ``.json`` (a list of objects) or ``.parquet`` file.

    CSV is UTF-8 with a header line; its values stay strings.

    Raises:
        UserError: no such file, an unknown format, contents that are not of the format, or a missing column.
    """
    with _errors_of(path):
        return Columns(str(path), READERS[path.suffix](path, wanted))


def column_names(path: Path) -> list[str]:
    """The columns of a data file, in order; errors as of `read_file`."""
    with _errors_of(path):
        return NAMERS[path.suffix](path)


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Within it, what is wrong with a data file is told in one sentence."""
    if path.suffix not in READERS:
        raise UserError(f"data file {path} has no known format; its name must end in {', '.join(READERS)}")
    if not path.is_file():
        raise UserError(f"data file {path} does not exist or is not a file; check its path")
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"data file {path} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"data file {path} cannot be read: {_first_line(error)}") from error


def check_whole_characters(value: Any, place: str) -> None:
    """Refuse a text with half a surrogate pair, which JSON and command lines can hold and a tokenizer cannot take.

    Raises:
        UserError: it has one; the message names ``place``.
    """
    if isinstance(value, str) and (half := re.search("[\ud800-\udfff]", value)):
        before = value[max(0, half.start() - 20) : half.end()]
        raise UserError(f"{place} has half a character, {half[0]!r} at the end of {before!r}; write it whole")


def read_hub(hub: str, config: str | None, split: str, wanted: Sequence[str]) -> Columns:
    """Read columns of one split of a data set on the Hugging Face hub (or of its copy in the hub's cache).

    Raises:
        UserError: the hub cannot be reached, has no such data set, configuration or split, or a column is
            missing.
    """
    import datasets  # here, because it takes a second and a client with its own file needs none of it

    name = f"{hub} ({config})" if config else hub
    way_out = "give a local copy with --dataset FOLDER"
    try:
        dataset = datasets.load_dataset(hub, config, split=split)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise UserError(f"the hub has no data set {hub!r} that may be read from here; {way_out}") from error
    except ConnectionError as error:
        raise UserError(
            f"data set {name} is no local folder, and the hub could not be reached ({_first_line(error)}); {way_out}"
        ) from error
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"split {split!r} of data set {name} cannot be read ({_first_line(error)}); name another, or {way_out}"
        ) from error
    return columns_of_dataset(dataset, wanted, f"split {split!r} of {name}")


def columns_of_dataset(dataset: Any, wanted: Sequence[str], place: str) -> Columns:
    """Some columns of a split of the ``datasets`` library.

    Raises:
        UserError: a column is missing, or was read from JSON with texts and other values in it: datasets 5.2 then
            decodes its texts too, and "null" or "007" cannot be told from null and 7.
    """
    _check_present(wanted, dataset.column_names, place)
    values = {column: list(dataset[column]) for column in wanted}
    for column, found in values.items():
        if type(dataset.features[column]).__name__ == "Json":
            others = (f" (row {n} is read as {shown(v)})" for n, v in enumerate(found, 1) if not isinstance(v, str))
            raise UserError(
                f"column {column!r} of {place} mixes texts and other values{next(others, '')}, so that the datasets "
                "library changes texts such as '007'; write all of them as texts, or give the JSON file itself with "
                "--dataset"
            )
    return Columns(place, values)


def _read_csv(path: Path, wanted: Sequence[str]) -> dict[str, list[str]]:
    found = read_csv_lines(path)
    if len(found.header) == 1 and (other := re.search("[;\t|]", found.header[0])):
        raise UserError(f"{path} has the columns {found.header[0]!r}; put commas between them, not {other[0]!r}")
    _check_present(wanted, found.header, str(path))
    if found.problem:
        raise UserError(found.problem)
    return {column: [row[found.header.index(column)] for row in found.lines[1:]] for column in wanted}


def _records(path: Path) -> Any:
    """What a JSON file holds; of a file of one object a line, a list of them."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".json":
        return _parse_json(text, f"data file {path}")
    lines = enumerate(text.split("\n"), start=1)
    return [_parse_json(line, f"line {number} of {path}") for number, line in lines if line.strip()]


def _parse_json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not valid JSON ({error}); a file of one object a line ends in .jsonl") from error


def _read_json(path: Path, wanted: Sequence[str]) -> dict[str, list[Any]]:
    records = _records(path)
    _check_present(wanted, _names_of_records(records, path, wanted[0]), str(path))
    for number, record in enumerate(records, start=1):
        for column in wanted:
            check_whole_characters(record.get(column), f"row {number} of {path} in column {column!r}")
    return {column: [record.get(column) for record in records] for column in wanted}


def _names_of_records(records: Any, path: Path, such_as: str = "text") -> list[str]:
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"data file {path} must hold JSON objects such as {{{such_as!r}: …}}, one for each row")
    return list(dict.fromkeys(key for record in records for key in record))


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """The module that reads it."""
    import pyarrow
    from pyarrow import parquet

    try:
        yield parquet
    except pyarrow.ArrowException as error:
        raise UserError(f"data file {path} is not valid Parquet: {_first_line(error)}") from error


def _read_parquet(path: Path, wanted: Sequence[str]) -> dict[str, list[Any]]:
    _check_present(wanted, _parquet_names(path), str(path))
    with _parquet(path) as parquet:
        return parquet.read_table(path, columns=list(wanted)).to_pydict()


def _parquet_names(path: Path) -> list[str]:
    with _parquet(path) as parquet:
        return parquet.read_schema(path).names


READERS = {".csv": _read_csv, ".jsonl": _read_json, ".json": _read_json, ".parquet": _read_parquet}
NAMERS = {
    ".csv": lambda path: read_csv_lines(path).header,
    ".jsonl": lambda path: _names_of_records(_records(path), path),
    ".json": lambda path: _names_of_records(_records(path), path),
    ".parquet": _parquet_names,
}


def _check_present(wanted: Sequence[str], found: Sequence[str], place: str) -> None:
    for column in wanted:
        if list(found).count(column) != 1:
            problem = "more than one column" if column in found else "no column"
            raise UserError(f"{place} has {problem} {column!r}; its columns are {list(found)}")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
