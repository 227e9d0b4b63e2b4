"""CSV files that are not quite as they should be."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import datasets
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flaretune.data.columns import columns_of_dataset, read_file
from flaretune.errors import UserError


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_quote_that_is_never_closed_does_not_swallow_the_rows_behind_it(tmp_path, end):
    file = tmp_path / "mine.csv"
    file.write_text('label,sentence\n1,good\n1,"Never closed\n0,bad\n0,worse' + end, encoding="utf-8")
    with pytest.raises(
        UserError, match=r"row 2 of .*mine\.csv, which begins with '1,\"Never closed', has a double quote"
    ):
        read_columns(file)
    file.write_text('label,sentence\n1,"""good"" film"\n0,"two\nlines, ""quoted"""\n\n1,last' + end, encoding="utf-8")
    assert read_columns(file) == ['"good" film', 'two\nlines, "quoted"', "last"]


# In each text a backslash stands for itself, unless it is one of Spark's before a quote.
@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        (r'"he said \"good\" twice",1', ['he said "good" twice']),
        (r'"he said \"good\", twice",1', ['he said "good", twice']),
        (r'"ends in \"good\"",1' "\n" r'"C:\new, \"x\"",0', ['ends in "good"', r'C:\new, "x"']),
        (r'"ends in \",1', ["ends in \\"]),
        (r'"a","1"' "\n" r'"ends in \","0"', ["a", "ends in \\"]),
        (r'"C:\new",1', [r"C:\new"]),
        (' "a, b",1\n c,0', ["a, b", "c"]),
        (' "a ""b""", 1', ['a "b"']),
        ('" a, ""b""",1\n c,0', [' a, "b"', " c"]),  # standard CSV, whose blanks stay
        ("a,1,\nb,0,", ["a", "b"]),
    ],
)
def test_csv_that_differs_from_the_standard_is_read_where_one_reading_is_left(tmp_path, rows, texts):
    file = tmp_path / "mine.csv"
    file.write_text(f"sentence,label\n{rows}\n", encoding="utf-8")
    assert read_columns(file) == texts


@pytest.mark.parametrize("between", [";", "\t", "|"])
def test_columns_with_something_else_than_commas_between_them(tmp_path, between):
    file = tmp_path / "mine.csv"
    file.write_text(f"sentence{between}label\na, b{between}1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.csv has the columns 'sentence.+label'; put commas between them, not '"):
        read_columns(file)


def spark(rows: list[tuple[str, str]]) -> str:
    return "".join('"' + text.replace('"', '\\"') + f'",{label}\n' for text, label in rows)


def standard(rows: list[tuple[str, str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


TEXT = st.lists(st.sampled_from(["a", "b", " ", '"', "\\", ",", "\n", ' "', '\\"']), min_size=1, max_size=6).map(
    "".join
)


@given(
    rows=st.lists(st.tuples(TEXT, st.sampled_from("01")), min_size=1, max_size=4),
    write=st.sampled_from([spark, standard]),
)
@settings(max_examples=300, deadline=None)
def test_no_text_is_changed_in_silence(tmp_path_factory, rows, write):
    """It is read as it was or, rarely, refused."""
    assume(write is standard or not any("\\" in text for text, _ in rows))
    file = tmp_path_factory.mktemp("rows") / "mine.csv"
    file.write_text(f"sentence,label\n{write(rows)}", encoding="utf-8", newline="")
    texts, refused = [text for text, _ in rows], ""
    try:
        texts = read_columns(file)
    except UserError as error:
        refused = str(error)
    assert texts == [text for text, _ in rows]
    assert re.fullmatch("|.* (may be read in two ways|has a double quote inside a text).*", refused, re.DOTALL)


def test_a_comma_at_the_end_of_the_header_alone_is_no_column(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("\nlabel,sentence,\n1,a\n0,b\n", encoding="utf-8")
    assert read_columns(file) == ["a", "b"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            'a,1\n"good" film,1',
            "row 2 .* has a double quote inside a text, or one that is never closed; put every text",
        ),
        ('"a "good" film",1', "row 1 .* has a double quote inside a text"),
        (
            'a,1\n "Good" film,1\n "b",0',
            "row 2 .* which begins with '\"Good\" film,1', has a double quote inside a text",
        ),
        (r'"a",1' "\n" r"he said \"no\" twice,1", "row 2 .* may be read in two ways, .* a backslash before a quote"),
        (r'"a \"b\"",1' "\n" r'"two \\ backslashes",1', "row 2 .* may be read in two ways"),
        (r'"a \"b\"",1' "\n" r'"a "good" film",1', "row 2 .* has a double quote inside a text"),
        (
            "a,1,\nb, c,1",
            "row 1 .* has 3 values for 2 columns; put .* in double quotes, or remove the comma at its end",
        ),
        ("a, b,1", "row 1 .* has 3 values for 2 columns; put texts that contain commas in double quotes$"),
    ],
)
def test_other_csv_is_refused_with_its_row(tmp_path, rows, message):
    file = tmp_path / "mine.csv"
    file.write_text(f"sentence,label\n{rows}\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_columns(file)


def test_a_quote_that_ends_a_file_of_one_column_is_told_too(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text('sentence\ngood\n"', encoding="utf-8")
    with pytest.raises(UserError, match=r"row 2 of .*mine\.csv.* never closed"):
        read_columns(file)


def test_a_text_may_be_long(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(f"sentence,label\n{'word ' * 40_000},1\n", encoding="utf-8")
    assert read_columns(file) == ["word " * 40_000]


@pytest.mark.parametrize("ends", [".jsonl", ".json"])
def test_half_a_surrogate_pair_is_told_with_its_row(tmp_path, ends):
    rows = [r'{"sentence": "whole \ud83d\ude00", "label": 1}', r'{"sentence": "half \ud83d one", "label": 1}']
    file = tmp_path / f"mine{ends}"
    file.write_text("\n".join(rows) if ends == ".jsonl" else f"[{','.join(rows)}]", encoding="utf-8")
    with pytest.raises(UserError, match=r"row 2 of .*mine\.jsonl? in column 'sentence' has half a character") as caught:
        read_columns(file)
    str(caught.value).encode()
    assert read_file(file, ["label"]).values["label"] == [1, 1]


@pytest.mark.parametrize("other", [5, ["a"], True])
def test_json_that_datasets_would_decode_is_refused(tmp_path, other):
    """One value that is no text, and datasets 5.2 reads the texts "007" and "null" as 7 and None."""
    rows = [*[{"sentence": text} for text in ("fine", "007", "null", "[1, 2]", '"x"')], {"sentence": other}]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    cache = str(tmp_path / "cache")
    mixed = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=cache)
    message = r"column 'sentence' of there mixes texts and other values \(row 2 is read as 7\).* --dataset"
    with pytest.raises(UserError, match=message):
        columns_of_dataset(mixed, ["sentence"], "there")
    assert read_columns(file) == [row["sentence"] for row in rows]  # which a task refuses with the row
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]), encoding="utf-8")
    texts = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=cache)
    assert columns_of_dataset(texts, ["sentence"], "there").values["sentence"] == [r["sentence"] for r in rows[:-1]]


def read_columns(file: Path) -> list[str]:
    return read_file(file, ["sentence"]).values["sentence"]
