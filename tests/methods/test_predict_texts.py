"""The texts that are to be classified, from a file or the command line, and the score of what is answered."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from flaretune.data.given_texts import given_texts, texts_of_file
from flaretune.errors import UserError
from flaretune.methods.classifier import score
from flaretune.softmax import softmax
from tests.tasks_for_tests import pair_task, review_task


def test_softmax_of_large_and_small_logits():
    np.testing.assert_allclose(softmax(np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]])), [[0.25, 0.75], [0.5, 0.5]])


def test_score_counts_by_class():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9]])  # says 0 1 0 1 1
    result = score(review_task(), probabilities, np.array([0, 1, 1, 0, 1]))
    assert (result.metric, result.value, result.n) == ("accuracy", 0.6, 5)
    assert (result.n_by_class, result.correct_by_class) == ((2, 3), (1, 2))
    assert result.confusion == ((1, 1), (1, 2))  # rows: labels
    assert result.standard_error == pytest.approx((3.5 * 2.5 / 6**3) ** 0.5)  # half an example more of both kinds
    json.dumps(result.__dict__)


def test_score_uses_the_task_s_metric():
    spec = review_task(metric="f1", positive_class=1)
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])  # says 0 1 0 1
    result = score(spec, probabilities, np.array([0, 1, 1, 0]))
    assert result.metric == "f1"
    assert result.value == 2 * 1 / (2 * 1 + 1 + 1)  # one true positive, one false, one missed


def test_score_by_macro_f1():
    result = score(review_task(metric="macro_f1"), np.eye(2)[[0, 0, 0, 1]], np.array([0, 0, 1, 1]))
    assert (result.metric, result.value) == ("macro_f1", pytest.approx((4 / 5 + 2 / 3) / 2))


def test_score_where_the_metric_has_no_value():
    result = score(review_task(metric="f1", positive_class=1), np.eye(2)[[0, 0]], np.array([0, 0]))
    assert (result.value, result.n, result.correct_by_class) == (None, 2, (2, 0))


def test_score_of_a_file_without_one_class():
    result = score(pair_task(), np.eye(3)[[0, 0]], np.array([0, 1]))
    assert (result.n_by_class, result.correct_by_class) == ((1, 1, 0), (1, 0, 0))
    assert result.confusion == ((1, 0, 0), (1, 0, 0), (0, 0, 0))


def test_score_tells_how_often_predictions_of_a_probability_are_correct():
    """0.94 and 0.96 are wrong and correct; 0.6 is on the edge of two tenths; 1 is in the last one."""
    sure = np.array([0.94, 0.96, 0.6, 1.0])
    probabilities = np.stack([1 - sure, sure], axis=1)
    found = score(review_task(), probabilities, np.array([0, 1, 1, 1])).reliability
    assert [(b["from"], b["to"], b["n"]) for b in found] == [(0.6, 0.7, 1), (0.9, 1.0, 3)]
    assert [b["confidence"] for b in found] == pytest.approx([0.6, (0.94 + 0.96 + 1) / 3])
    assert [b["correct"] for b in found] == pytest.approx([1, 2 / 3])


PAIRS = [{"premise": "He sleeps, deeply", "hypothesis": "He is awake"}, {"premise": "x", "hypothesis": "y"}]


def write(file: Path, rows: list[dict]) -> Path:
    if file.suffix == ".csv":
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_texts_of_a_file_need_no_label_and_leave_other_columns_alone(tmp_path, suffix):
    file = write(tmp_path / f"texts.{suffix}", [{"id": n, **row} for n, row in enumerate(PAIRS)])
    assert texts_of_file(pair_task(), file) == PAIRS


def test_lines_of_a_text_file(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_bytes("\ufeffa film, “good”\r\n\r\n  \n another \u2028 one".encode())
    assert texts_of_file(review_task(), str(file)) == [
        {"sentence": "a film, “good”"},
        {"sentence": " another \u2028 one"},
    ]


def test_texts_of_the_command_line():
    assert given_texts(review_task(), ["a", "b"]) == [{"sentence": "a"}, {"sentence": "b"}]


@pytest.mark.parametrize(
    ("spec", "name", "content", "message"),
    [
        (
            pair_task(),
            "t.txt",
            b"one\n",
            "task 'pairs' has the text columns premise, hypothesis, .* CSV, JSONL or Parquet",
        ),
        (review_task(), "t.txt", b"caf\xe9\n", "t.txt is not UTF-8 at byte 3"),
        (review_task(), "t.txt", b" \n\n", "t.txt has no text; give at least one"),
        (review_task(), "t.txt", None, r"t.txt cannot be read \(No such file or directory\)"),
        (review_task(), "t.csv", b'sentence\na\n" "\n', "text 2 of .*t.csv is ' ' in column 'sentence'"),
        (review_task(), "t.csv", b"sentence\n", "t.csv has no text; give at least one"),
        (review_task(), "t.csv", b"text\na\n", "t.csv has no column 'sentence'"),
        (review_task(), "t.jsonl", b'{"sentence": 5}\n', "text 1 of .*t.jsonl is 5 in column 'sentence'"),
        (review_task(), "t.docx", b"", r"t.docx has no known format; its name must end in .csv"),
        (review_task(), "t.csv", None, "t.csv does not exist"),
    ],
)
def test_files_that_hold_no_texts_are_refused(tmp_path, spec, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        texts_of_file(spec, tmp_path / name)


def test_bytes_of_a_command_line_that_are_no_utf_8_are_refused():
    given = b"caf\xe9 noir".decode(errors="surrogateescape")  # as Python has them from the shell
    with pytest.raises(UserError, match=r"text 2 of the command line has half a character, .* at the end of 'caf"):
        given_texts(review_task(), ["fine", given])


def test_texts_that_are_no_texts_are_refused():
    with pytest.raises(
        UserError, match="text 2 of the command line is '' in column 'sentence'; every row needs a text"
    ):
        given_texts(review_task(), ["a", ""])
    with pytest.raises(UserError, match="task 'pairs' has the text columns premise, hypothesis, so a text alone"):
        given_texts(pair_task(), ["a"])
