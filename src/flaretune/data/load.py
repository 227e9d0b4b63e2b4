"""A task's examples, from a hub, a local folder or a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from flaretune.data.columns import READERS, Columns, read_hub
from flaretune.data.places import LocalSplit, find_split, is_one_set
from flaretune.errors import UserError
from flaretune.tasks.checks import OUT_OF_SCOPE, is_score, label_key
from flaretune.tasks.spec import TaskSpec


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled examples of a task.

    Attributes:
        texts: of each example, text column → text; length N.
        labels: class ids, int64, shape (N,).
    """

    texts: tuple[dict[str, str], ...]
    labels: np.ndarray

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self.texts),):
            raise ValueError(f"{len(self.texts)} texts need labels of shape ({len(self.texts)},)")

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int] | np.ndarray) -> Examples:
        """The examples at ``indices``, in that order."""
        indices = np.asarray(indices, dtype=np.int64)
        return Examples(tuple(self.texts[i] for i in indices), self.labels[indices])


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Texts that nobody labelled, as a client of LP-FL has many of, or whose labels an experiment hides.

    Attributes:
        texts: of each example, text column → text; length N.
        truth: the hidden class ids, int64, shape (N,), where the pool was cut from a labelled set; for reports
            only, never to train or to choose by. None for a real pool.
    """

    texts: tuple[dict[str, str], ...] = ()
    truth: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.truth is not None and self.truth.shape != (len(self.texts),):
            raise ValueError(f"{len(self.texts)} texts need hidden labels of shape ({len(self.texts)},)")

    def __len__(self) -> int:
        return len(self.texts)


def load_split(spec: TaskSpec, split: Literal["train", "test"], dataset: str | None = None) -> Examples:
    """Load the examples that a task trains on (``train``) or is tested with (``test``).

    Args:
        split: which of the two; the task's source says what the split is called there.
        dataset: replaces the task's source: a folder with the splits of the task's source (see `data.places`), one
            data file (for ``train`` only), or a hub id, as ``id`` or ``id:config``. A path that exists is taken before
            a hub id of the same name.

    Returns:
        The examples in the source's order, without those whose label the task drops.

    Raises:
        UserError: the data cannot be had, a column is missing, a text is empty or a label unknown.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    name = {"train": spec.source.train, "test": spec.source.test}[split]
    place = dataset or spec.source.path
    if place and (Path(place).expanduser().exists() or _looks_like_path(place)):
        return _to_examples(spec, find_local(place, split, name, spec.source.config).read(_columns(spec)))
    if dataset:
        hub, _, config = dataset.partition(":")
        if not config and hub == spec.source.hub:
            config = spec.source.config
    else:
        hub, config = spec.source.hub, spec.source.config
    return _to_examples(spec, read_hub(hub, config or None, name, _columns(spec)))


def is_one_file(spec: TaskSpec, dataset: str | None = None) -> bool:
    """Whether a task's source, or what replaces it, is a single file, or set without splits, on this machine."""
    place = dataset or spec.source.path
    return bool(place) and is_one_set(place)


def find_local(place: str, split: Literal["train", "test"], name: str, config: str | None) -> LocalSplit:
    """Find a split on this machine.

    Args:
        place: a folder in one of the shapes that `data.places` knows; one without splits is of ``train`` only.
        config: of the data set on the hub, whose sub-folder a copy may have.

    Raises:
        UserError: it is not there.
    """
    folder = Path(place).expanduser()
    if not folder.exists():
        raise UserError(f"{folder} does not exist; give a folder of data files with --dataset FOLDER")
    if not is_one_set(folder):
        return find_split(folder, name, config)
    if split == "test":
        raise UserError(
            f"{folder} is one {'file' if folder.is_file() else 'data set'} and has no test split; give a folder that "
            f"also has a test file, {name}.csv"
        )
    return LocalSplit((folder,))


def load_file(spec: TaskSpec, path: str | Path) -> Examples:
    """Load the examples of one local file (see ``flaretune.data.columns.read_file`` for the formats) or saved data set.

    Raises:
        UserError: the file cannot be read, a column is missing, a text is empty or a label unknown.
    """
    return _to_examples(spec, LocalSplit((Path(path).expanduser(),)).read(_columns(spec)))


def load_texts(spec: TaskSpec, path: str | Path) -> Unlabelled:
    """Load the texts of one local file or saved data set, which needs the text columns only; no label is read.

    Rows are therefore kept whatever their label, those that the task drops too.

    Raises:
        UserError: the file cannot be read, a column is missing, a text is empty or there is none.
    """
    columns = LocalSplit((Path(path).expanduser(),)).read(spec.text_columns)
    n_rows = len(columns.values[spec.text_columns[0]])
    if not n_rows:
        raise UserError(f"{columns.place} has no texts; give data with at least one row")
    return Unlabelled(tuple(_texts_of_row(spec, columns, row) for row in range(n_rows)))


def _columns(spec: TaskSpec) -> tuple[str, ...]:
    return (*spec.text_columns, spec.label_column)


def _looks_like_path(place: str) -> bool:
    """True for what cannot be meant as a hub id ("name" or "owner/name")."""
    is_deep = place.count("/") > 1 or "\\" in place
    return is_deep or place.startswith((".", "/", "~")) or Path(place).suffix in READERS


def _to_examples(spec: TaskSpec, columns: Columns) -> Examples:
    class_ids = {label_key(value): class_id for class_id, value in enumerate(spec.label_values)}
    dropped = {label_key(value) for value in spec.drop_labels}
    raw_labels = columns.values[spec.label_column]
    texts, labels = [], []
    for row, raw_label in enumerate(raw_labels):
        key = label_key(raw_label)
        if key in dropped:
            continue
        if key not in class_ids:
            found = f"the label {raw_label!r}" if key else "no label"
            other = f"; {OUT_OF_SCOPE}" if is_score(raw_label) else ""
            other = other if key else '; remove such rows, or write drop_labels = [""] into the task file'
            allowed = ", ".join(repr(value) for value in (*spec.label_values, *spec.drop_labels))
            raise UserError(
                f"row {row + 1} of {columns.place} has {found} in column {spec.label_column!r}; task {spec.name!r} "
                f"allows {allowed}{other}"
            )
        texts.append(_texts_of_row(spec, columns, row))
        labels.append(class_ids[key])
    if not texts:
        raise UserError(f"{columns.place} has no labelled examples; give data with at least one row")
    return Examples(tuple(texts), np.array(labels, dtype=np.int64))


def _texts_of_row(spec: TaskSpec, columns: Columns, row: int) -> dict[str, str]:
    texts = {column: columns.values[column][row] for column in spec.text_columns}
    for column, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f"row {row + 1} of {columns.place} has {text!r} in column {column!r}; every row needs a text there"
            )
    return texts
