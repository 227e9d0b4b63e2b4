from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from flaretune.data.load import Examples, load_file, load_split, load_texts
from flaretune.errors import UserError
from tests.tasks_for_tests import pair_task, review_task

ROWS = [
    {"sentence": 'a "fine", moving film ', "label": 1},
    {"sentence": "NA", "label": 0},
    {"sentence": "12", "label": 0},
    {"sentence": "Übung über zwei\nZeilen", "label": 1},
]


def write_csv(file: Path, rows: list[dict]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def write_json_lines(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def write_json(file: Path, rows: list[dict]) -> Path:
    file.write_text(json.dumps(rows), encoding="utf-8")
    return file


def write_parquet(file: Path, rows: list[dict]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file


WRITERS = {"csv": write_csv, "jsonl": write_json_lines, "json": write_json, "parquet": write_parquet}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_texts_as_they_were_written(tmp_path, suffix):
    file = WRITERS[suffix](tmp_path / f"mine.{suffix}", ROWS)
    examples = load_file(review_task(), file)
    assert [text["sentence"] for text in examples.texts] == [row["sentence"] for row in ROWS]
    assert examples.labels.dtype == np.int64
    assert examples.labels.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_folder_holds_the_splits_by_the_names_of_the_tasks_source(tmp_path, suffix):
    WRITERS[suffix](tmp_path / f"train.{suffix}", ROWS)
    WRITERS[suffix](tmp_path / f"validation.{suffix}", ROWS[:1])
    assert len(load_split(review_task(), "train", str(tmp_path))) == 4
    assert len(load_split(review_task(), "test", str(tmp_path))) == 1


def test_a_changed_file_is_read_anew(tmp_path):
    write_csv(tmp_path / "train.csv", ROWS)
    assert len(load_split(review_task(), "train", str(tmp_path))) == 4
    write_csv(tmp_path / "train.csv", [{"sentence": "another", "label": 1}])
    assert load_split(review_task(), "train", str(tmp_path)).texts == ({"sentence": "another"},)


def test_the_tasks_own_path_is_used_without_a_dataset(tmp_path):
    spec = review_task(source={"path": str(tmp_path), "train": "all", "test": "held_out"})
    write_csv(tmp_path / "all.csv", ROWS)
    assert len(load_split(spec, "train")) == 4
    with pytest.raises(UserError, match=r"no file of split 'held_out'.*held_out\.csv.*holds \['all\.csv'\]"):
        load_split(spec, "test")


def test_one_file_is_enough_to_train_but_not_to_test(tmp_path):
    file = write_csv(tmp_path / "mine.csv", ROWS)
    assert len(load_split(review_task(), "train", str(file))) == 4
    with pytest.raises(UserError, match=r"mine\.csv is one file.*validation\.csv"):
        load_split(review_task(), "test", str(file))


def test_dropped_labels_and_string_labels(tmp_path):
    rows = [
        {"premise": "a", "hypothesis": "b", "label": " 2 "},
        {"premise": "", "hypothesis": "d", "label": "-1"},
        {"premise": "e", "hypothesis": "f", "label": "0"},
    ]
    examples = load_file(pair_task(), write_csv(tmp_path / "pairs.csv", rows))
    assert examples.texts == ({"premise": "a", "hypothesis": "b"}, {"premise": "e", "hypothesis": "f"})
    assert examples.labels.tolist() == [2, 0]


def test_class_ids_follow_label_values(tmp_path):
    rows = [{"sentence": "a", "label": "pos"}, {"sentence": "b", "label": "neg"}]
    spec = review_task(label_values=["neg", "pos"])
    assert load_file(spec, write_json_lines(tmp_path / "x.jsonl", rows)).labels.tolist() == [1, 0]


def test_numbers_that_parquet_keeps_as_floats_are_labels(tmp_path):
    rows = [{"sentence": "a", "label": 1.0}, {"sentence": "b", "label": 0.0}]
    assert load_file(review_task(), write_parquet(tmp_path / "x.parquet", rows)).labels.tolist() == [1, 0]


@pytest.mark.parametrize(("negative", "positive"), [("0.0", "1.0"), (0.0, 1), (" 0 ", 1.0)])
def test_numbers_as_pandas_writes_them_are_the_same_labels_in_all_formats(tmp_path, negative, positive):
    rows = [{"sentence": "a", "label": positive}, {"sentence": "b", "label": negative}]
    for suffix in ("csv", "jsonl", "json"):
        assert load_file(review_task(), WRITERS[suffix](tmp_path / f"x.{suffix}", rows)).labels.tolist() == [1, 0]


@pytest.mark.parametrize("values", [[False, True], ["False", "True"], ["false", "true"], ["FALSE", "TRUE"]])
def test_truth_values_are_the_same_labels_in_all_formats(tmp_path, values):
    task = review_task(label_values=values)
    for written in ([True, False], ["True", "False"], ["true", "false"], ["TRUE", "FALSE"]):
        rows = [{"sentence": "a", "label": label} for label in written]
        formats = WRITERS if isinstance(written[0], bool) else ("csv", "jsonl")
        for suffix in formats:
            assert load_file(task, WRITERS[suffix](tmp_path / f"x.{suffix}", rows)).labels.tolist() == [1, 0]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("absent", [None, float("nan")])
def test_a_label_that_is_absent_is_none_of_the_classes(tmp_path, suffix, absent):
    """Not even of classes that are called so, nor a number; "" in drop_labels leaves its row out."""
    names = ["None", "nan"] if absent is None or suffix != "parquet" else [0, 1]
    rows = [{"sentence": text, "label": label} for text, label in zip("abc", [*names, absent], strict=True)]
    file = WRITERS[suffix](tmp_path / f"x.{suffix}", rows)
    with pytest.raises(UserError, match=r"row 3 of .* has no label") as caught:
        load_file(review_task(label_values=names), file)
    assert "regression" not in str(caught.value)
    kept = load_file(review_task(label_values=names, drop_labels=[""]), file)
    assert ([text["sentence"] for text in kept.texts], kept.labels.tolist()) == (["a", "b"], [0, 1])


def test_take_keeps_the_given_order():
    examples = Examples(({"s": "a"}, {"s": "b"}, {"s": "c"}), np.array([0, 1, 0]))
    taken = examples.take(np.array([2, 1]))
    assert taken.texts == ({"s": "c"}, {"s": "b"})
    assert taken.labels.tolist() == [0, 1]
    assert len(examples.take([])) == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "text,label\na,1\n", r"x\.csv has no column 'sentence'; its columns are \['text', 'label'\]"),
        ("x.csv", "sentence,label,label\na,1,1\n", "more than one column 'label'"),
        ("x.csv", "sentence,label\na,1\nb,2\n", r"row 2 of .*x\.csv has the label '2' .* allows 0, 1"),
        ("x.csv", "sentence,label\na,\n", "row 1 .* has no label in column 'label'"),
        ("x.csv", "sentence,label\na,1\n  ,0\n", "row 2 of .* has '  ' in column 'sentence'"),
        ("x.csv", "sentence,label\na, b,1\n", "row 1 of .* has 3 values for 2 columns"),
        ("x.csv", "sentence,label\n", "no labelled examples"),
        ("x.csv", "", r"no column 'sentence'; its columns are \[\]"),
        ("x.csv", b"sentence,label\nsch\xf6n,1\n", "not UTF-8 at byte 18"),
        ("x.jsonl", '{"sentence": null, "label": 1}\n', "row 1 of .* has None in column 'sentence'"),
        ("x.jsonl", '{"sentence": 5, "label": 1}\n', "row 1 of .* has 5 in column 'sentence'"),
        ("x.jsonl", '{"sentence": "a", "label": 1}\n{oops\n', "line 2 of .* is not valid JSON"),
        ("x.jsonl", '["a", 1]\n', "must hold JSON objects"),
        ("x.json", '{"sentence": "a", "label": 1}', "must hold JSON objects"),
        ("x.json", '{"a": 1}\n{"a": 2}\n', "not valid JSON .* ends in .jsonl"),
        ("x.parquet", "no parquet", "not valid Parquet"),
        ("x.txt", "a", "has no known format"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        load_file(review_task(), file)
    assert "\n" not in str(caught.value)


def test_json_that_python_does_not_take_apart_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "x.json"
    file.write_text("[]", encoding="utf-8")

    def refuse(_text):
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr(json, "loads", refuse)
    with pytest.raises(UserError, match=r"not valid JSON \(maximum recursion depth exceeded"):
        load_file(review_task(), file)


@pytest.mark.parametrize(
    "error", [OSError("Couldn't deserialize thrift:\n"), pyarrow.ArrowNotImplementedError("Integers of 5 bits\n(more)")]
)
def test_whatever_is_damaged_in_a_parquet_file_is_one_sentence(tmp_path, monkeypatch, error):
    file = WRITERS["parquet"](tmp_path / "x.parquet", ROWS)

    def refuse(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(parquet, "read_table", refuse)
    with pytest.raises(UserError, match=re.escape(str(error).split("\n")[0])) as caught:
        load_file(review_task(), file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", WRITERS)
def test_texts_alone_need_no_label_column(tmp_path, suffix):
    rows = [{"note": 3, "sentence": row["sentence"]} for row in ROWS]
    pool = load_texts(review_task(), WRITERS[suffix](tmp_path / f"pool.{suffix}", rows))
    assert pool.texts == tuple({"sentence": row["sentence"]} for row in ROWS)
    assert len(pool) == 4
    assert pool.truth is None


def test_texts_alone_come_without_the_labels_that_stand_beside_them(tmp_path):
    rows = [
        {"premise": "a", "hypothesis": "b", "label": "no class"},
        {"premise": "c", "hypothesis": "d", "label": "-1"},
    ]
    pool = load_texts(pair_task(), write_csv(tmp_path / "pool.csv", rows))
    assert pool.texts == ({"premise": "a", "hypothesis": "b"}, {"premise": "c", "hypothesis": "d"})
    assert pool.truth is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "text\na\n", r"x\.csv has no column 'sentence'; its columns are \['text'\]"),
        ("x.csv", "sentence,n\na,1\n ,2\n", "row 2 of .* has ' ' in column 'sentence'; every row needs a text"),
        ("x.jsonl", '{"sentence": null}\n', "row 1 of .* has None in column 'sentence'"),
        ("x.csv", "sentence\n", r"x\.csv has no texts; give data with at least one row"),
        ("x.json", "[]", "no column 'sentence'"),
        ("x.txt", "a", "has no known format"),
    ],
)
def test_what_is_wrong_in_a_file_of_texts_is_said(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        load_texts(review_task(), tmp_path / name)
    assert "\n" not in str(caught.value)


def test_places_that_do_not_exist(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_file(review_task(), tmp_path / "none.csv")
    with pytest.raises(UserError, match="does not exist"):
        load_texts(review_task(), tmp_path / "none.csv")
    for place in (str(tmp_path / "none"), "./none", "none.csv", "one/two/three"):
        with pytest.raises(UserError, match=r"does not exist; .*--dataset FOLDER"):
            load_split(review_task(), "train", place)


def test_two_files_for_one_split(tmp_path):
    write_csv(tmp_path / "train.csv", ROWS)
    write_json(tmp_path / "train.json", ROWS)
    with pytest.raises(UserError, match=r"train\.csv and train\.json for split 'train'"):
        load_split(review_task(), "train", str(tmp_path))
