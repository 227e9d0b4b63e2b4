"""Stand-ins for the published data sets: their columns, features and label ids as on the hub, with made-up texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets

from tests.tokenizers_for_tests import SENTENCES, THINGS, TOPICS

WORDS = (*TOPICS, *THINGS)  # label words that the tokenizers must be given
DBPEDIA = [
    *("Company", "EducationalInstitution", "Artist", "Athlete", "OfficeHolder", "MeanOfTransportation", "Building"),
    *("NaturalPlace", "Village", "Animal", "Plant", "Album", "Film", "WrittenWork"),
]

# task: (names of the labels, text columns, other columns, test split, configuration)
SHAPES = {
    "sst2": (["negative", "positive"], ["sentence"], {"idx": "int32"}, "validation", "sst2"),
    "yelpp": (["1", "2"], ["text"], {}, "test", "plain_text"),
    "agnews": (["World", "Sports", "Business", "Sci/Tech"], ["text"], {}, "test", "default"),
    "dbpedia": (DBPEDIA, ["content"], {"title": "string"}, "test", "dbpedia_14"),
    "rte": (["entailment", "not_entailment"], ["sentence1", "sentence2"], {"idx": "int32"}, "validation", "rte"),
    "mrpc": (["not_equivalent", "equivalent"], ["sentence1", "sentence2"], {"idx": "int32"}, "validation", "mrpc"),
    "snli": (["entailment", "neutral", "contradiction"], ["premise", "hypothesis"], {}, "test", "plain_text"),
}
ROWS_OF_A_CLASS = 6


def stand_in(task: str) -> datasets.DatasetDict:
    """Training and test split of a stand-in; that of SNLI has a row labelled −1 behind every tenth."""
    names, texts, others, test, _config = SHAPES[task]
    features = {column: datasets.Value("string") for column in texts}
    features |= {column: datasets.Value(kind) for column, kind in others.items()}
    features["label"] = datasets.ClassLabel(names=names)
    splits = {}
    for number, split in enumerate(("train", test)):
        labels = [label for label in range(len(names)) for _ in range(ROWS_OF_A_CLASS)]
        if task == "snli":
            labels = [value for i, label in enumerate(labels) for value in ([label, -1] if i % 10 == 9 else [label])]
        rows = {
            column: [f"{SENTENCES[(i + 3 * c + number) % len(SENTENCES)]} {i}" for i in range(len(labels))]
            for c, column in enumerate(texts)
        }
        rows |= {
            c: [i if kind == "int32" else f"a title {i}" for i in range(len(labels))] for c, kind in others.items()
        }
        splits[split] = datasets.Dataset.from_dict({**rows, "label": labels}, features=datasets.Features(features))
    return datasets.DatasetDict(splits)


def to_disk(task: str, folder: Path) -> Path:
    stand_in(task).save_to_disk(folder)
    return folder


def to_csv(task: str, folder: Path) -> Path:
    folder.mkdir()
    for split, rows in stand_in(task).items():
        rows.to_csv(folder / f"{split}.csv")
    return folder


def as_on_the_hub(task: str, folder: Path) -> Path:
    """A repository's folder: a sub-folder of the configuration with Parquet files, the training data in two."""
    config = SHAPES[task][4]
    (folder / config).mkdir(parents=True)
    for split, rows in stand_in(task).items():
        count = 2 if split == "train" else 1
        for i in range(count):
            rows.shard(count, i, contiguous=True).to_parquet(folder / config / f"{split}-{i:05}-of-{count:05}.parquet")
    return folder


WRITERS: dict[str, Callable[[str, Path], Path]] = {"save_to_disk": to_disk, "csv": to_csv, "hub": as_on_the_hub}
