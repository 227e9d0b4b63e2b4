"""Which examples a client works with: its own file, or its share of a common data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flaretune.data.load import Examples, Unlabelled, is_one_file, load_file, load_split
from flaretune.data.partition import dirichlet_proportions, dirichlet_shares, iid_shares
from flaretune.data.places import is_one_set
from flaretune.errors import UserError
from flaretune.seeding import derive_seed
from flaretune.tasks.spec import TaskSpec


@dataclass(frozen=True)
class ClientData:
    """What a client works with.

    Attributes:
        validation: examples to compare prompts or adapters on.
        test: examples to report on; None where the client does not evaluate.
        unlabelled: texts besides, none of them among the examples; empty unless asked for.
    """

    train: Examples
    validation: Examples
    test: Examples | None
    unlabelled: Unlabelled = field(default_factory=Unlabelled)


@dataclass(frozen=True)
class Split:
    """How a common data set is shared out: the same at every client that has the same numbers.

    Attributes:
        k_shot: examples per class for training, and as many for validation, over all clients.
        alpha: concentration of the Dirichlet split, where not.
        unlabelled: texts without labels, over all clients.
    """

    k_shot: int
    n_shares: int
    iid: bool
    alpha: float
    seed: int
    unlabelled: int = 0


def share_of_common_set(
    spec: TaskSpec, dataset: str | None, split: Split, share: int, test_part: tuple[int, int] | None
) -> ClientData:
    """A client's share of the common data set.

    Args:
        dataset: in place of the task's own source; None for that. Of a single file, what is left after drawing training
            and validation examples and unlabelled texts is the test data.
        share: which share, in [0, split.n_shares).
        test_part: (i, k) for every k-th test example from the i-th on; None for no test data.

    Raises:
        UserError: the data cannot be had, is too small for k_shot and unlabelled, or leaves the share without a
            training example.
    """
    pool = load_split(spec, "train", dataset)
    train, validation = few_shot(pool.labels, split.k_shot, spec.label_values, derive_seed(split.seed, "few-shot"))
    rest = np.setdiff1d(np.arange(len(pool)), np.concatenate([train, validation]))
    unlabelled = _draw_unlabelled(rest, split.unlabelled, split.seed, f"the training split of {dataset or spec.name}")
    test = None
    if test_part is not None:
        if is_one_file(spec, dataset):
            left = np.setdiff1d(rest, unlabelled)
            test = _rest_to_test_on(pool, left, str(dataset or spec.source.path), split.k_shot, split.unlabelled)
        else:
            test = load_split(spec, "test", dataset)
        first, step = test_part
        test = test.take(np.arange(first, len(test), step))
        if len(test) == 0:
            raise UserError(f"--eval_clients: the test data is too small to be divided among {step} clients")

    def own(part: np.ndarray, purpose: str) -> Examples:
        return pool.take(part[_shares(pool.labels[part], spec.n_classes, split, purpose)[share]])

    # "dev" is a label of seeds, as old as they are: another would draw other shares
    return ClientData(own(train, "train"), own(validation, "dev"), test, _hide_labels(own(unlabelled, "unlabelled")))


def own_data(spec: TaskSpec, path: str, k_shot: int, seed: int, with_test: bool, unlabelled: int = 0) -> ClientData:
    """A client's own examples, none of which any other client sees.

    Args:
        path: a file, or a folder with a training file and, where the client evaluates, a test file. Of a single
            file, what is left after drawing training and validation examples and unlabelled texts is the test
            data.
        k_shot: examples per class for training, and as many for validation, at this client.
        unlabelled: how many of the training file's other examples are taken as texts without labels.

    Raises:
        UserError: the data cannot be had, is too small for k_shot and unlabelled, or leaves nothing to test on.
    """
    is_folder = Path(path).expanduser().is_dir() and not is_one_set(path)
    pool = load_split(spec, "train", path) if is_folder else load_file(spec, path)
    train, validation = few_shot(pool.labels, k_shot, spec.label_values, derive_seed(seed, "few-shot"))
    rest = np.setdiff1d(np.arange(len(pool)), np.concatenate([train, validation]))
    drawn = _draw_unlabelled(rest, unlabelled, seed, path)
    test = None
    if with_test and is_folder:
        test = load_split(spec, "test", path)
    elif with_test:
        test = _rest_to_test_on(pool, np.setdiff1d(rest, drawn), path, k_shot, unlabelled)
    return ClientData(pool.take(train), pool.take(validation), test, _hide_labels(pool.take(drawn)))


def few_shot(labels: np.ndarray, k: int, raw_labels: Sequence[int | str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a training and a validation set of k examples per class each, with no example in common (as LM-BFF and BBT).

    Args:
        labels: class ids, shape (N,).
        k: examples of each class in each of the two sets.
        raw_labels: of the classes 0 … C − 1, as the data has them.

    Returns:
        Indices into ``labels`` for training and for validation, int64, each of shape (k · C,), ascending.

    Raises:
        UserError: k < 1, or a class with fewer than 2k examples.
    """
    if k < 1:
        raise UserError(f"--k_shot {k}: must be at least 1")
    labels, class_ids = np.asarray(labels), range(len(raw_labels))
    counts = [int(np.sum(labels == class_id)) for class_id in class_ids]
    scarcest = int(np.argmin(counts))
    if counts[scarcest] < 2 * k:
        most = counts[scarcest] // 2
        remedy = f"use at most {most}" if most else "add texts with it"
        raise UserError(
            f"--k_shot {k}: takes {k} texts with each label for training and as many for validation, and only "
            f"{counts[scarcest]} have the label {raw_labels[scarcest]!r}; {remedy}"
        )
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(labels == class_id))[: 2 * k] for class_id in class_ids]
    train = np.concatenate([indices[:k] for indices in drawn])
    validation = np.concatenate([indices[k:] for indices in drawn])
    return np.sort(train), np.sort(validation)


def _rest_to_test_on(pool: Examples, left: np.ndarray, place: str, k_shot: int, unlabelled: int) -> Examples:
    """What is left of a single file for a test."""
    if len(left) == 0:
        takes, leaves, remedy = f"--k_shot {k_shot} takes", "leaves", "--k_shot"
        if unlabelled:
            takes, leaves, remedy = f"--k_shot {k_shot} and --unlabelled {unlabelled} take", "leave", "--unlabelled"
        raise UserError(
            f"{place}: {takes} all {len(pool)} rows and {leaves} none to test on; "
            f"use a smaller {remedy}, or leave this client out of --eval_clients"
        )
    return pool.take(left)


def _draw_unlabelled(rest: np.ndarray, n_wanted: int, seed: int, place: str) -> np.ndarray:
    """Draw texts from the rows that are neither training nor validation examples, whatever their class.

    Returns:
        `n_wanted` entries of `rest`, ascending. A larger draw with the same seed contains a smaller one.
    """
    if n_wanted < 0:
        raise UserError(f"--unlabelled {n_wanted}: must be at least 0")
    if n_wanted > len(rest):
        raise UserError(
            f"--unlabelled {n_wanted}: besides training and validation examples {place} has {len(rest)} texts; "
            "use at most that many"
        )
    return np.sort(np.random.default_rng(derive_seed(seed, "unlabelled")).permutation(rest)[:n_wanted])


def _hide_labels(examples: Examples) -> Unlabelled:
    return Unlabelled(examples.texts, truth=examples.labels)


def _shares(labels: np.ndarray, n_classes: int, split: Split, purpose: str) -> list[np.ndarray]:
    seed = derive_seed(split.seed, "shares", purpose)
    may_be_empty = purpose != "train"
    if split.iid:
        return iid_shares(labels, split.n_shares, seed, allow_empty=may_be_empty)
    # one draw of proportions for all, so that a client's other texts are like its training examples
    proportions = dirichlet_proportions(n_classes, split.n_shares, split.alpha, derive_seed(split.seed, "proportions"))
    return dirichlet_shares(labels, proportions, seed, alpha=split.alpha, allow_empty=may_be_empty)
