"""CSV files that are not quite as they should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from flaretune.data.columns import read_file
from flaretune.errors import UserError


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_quote_that_is_never_closed_does_not_swallow_the_rows_behind_it(tmp_path, end):
    file = tmp_path / "mine.csv"
    file.write_text('label,sentence\n1,"good" film\n1,"Never closed\n0,bad\n0,worse' + end, encoding="utf-8")
    with pytest.raises(UserError, match=r"row 2 of .*mine\.csv, which begins with '1', has a text whose double quote"):
        read_columns(file)
    file.write_text('label,sentence\n1,"good" film\n0,"two\nlines, ""quoted"""\n\n1,last' + end, encoding="utf-8")
    assert read_columns(file) == ["good film", 'two\nlines, "quoted"', "last"]


def test_a_quote_that_ends_a_file_of_one_column_is_told_too(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text('sentence\ngood\n"', encoding="utf-8")
    with pytest.raises(UserError, match=r"row 2 of .*mine\.csv.* never closed"):
        read_columns(file)


def test_a_text_may_be_long(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(f"sentence,label\n{'word ' * 40_000},1\n", encoding="utf-8")
    assert read_columns(file) == ["word " * 40_000]


def read_columns(file: Path) -> list[str]:
    return read_file(file, ["sentence"]).values["sentence"]
