"""The labelled and test texts that every method of a comparison gets."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from in_process import client_names

from flaretune.data.load import Examples, load_split
from flaretune.data.shares import Split, share_of_common_set
from flaretune.seeding import derive_seed
from flaretune.tasks.spec import TaskSpec, load_task

CLIENTS = client_names(4)
K_SHOT = 64
N_TEST = 400


@dataclass(frozen=True)
class Texts:
    """What a method gets: training and validation texts of all clients, and test texts."""

    train: Examples
    validation: Examples
    test: Examples


@dataclass(frozen=True)
class Place:
    """A task as the command line names it, and the folder that its texts lie in for this measurement."""

    task: str
    folder: str

    @property
    def spec(self) -> TaskSpec:
        return load_task(self.task)

    def options(self, seed: int) -> dict[str, Any]:
        """Of a job on these texts."""
        named = {"task_file" if self.task.endswith(".toml") else "task_name": self.task}
        return {**named, "dataset": self.folder, "k_shot": K_SHOT, "seed": seed}

    def texts(self, seed: int) -> Texts:
        """Those of a job's clients with this seed, one client's behind the other's."""
        split = Split(K_SHOT, len(CLIENTS), True, 0.5, seed)
        shares = [share_of_common_set(self.spec, self.folder, split, i, (i, len(CLIENTS))) for i in range(len(CLIENTS))]
        return Texts(*(_together([getattr(s, part) for s in shares]) for part in ("train", "validation", "test")))


def _together(parts: Sequence[Examples]) -> Examples:
    return Examples(tuple(t for part in parts for t in part.texts), np.concatenate([part.labels for part in parts]))


def lay_out(task: str, dataset: str | None, folder: Path) -> Place:
    """Write a task's training texts and at most `N_TEST` of its test texts into a folder that jobs can read.

    Raises:
        UserError: the task or its data cannot be had.
    """
    spec = load_task(task)
    pool, test = load_split(spec, "train", dataset), load_split(spec, "test", dataset)
    if len(test) > N_TEST:
        test = test.take(np.random.default_rng(derive_seed(1, "baselines", "test")).permutation(len(test))[:N_TEST])
    folder.mkdir()
    for name, examples in ((spec.source.train, pool), (spec.source.test, test)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*spec.text_columns, spec.label_column])
            for text, label in zip(examples.texts, examples.labels, strict=True):
                writer.writerow([*(text[column] for column in spec.text_columns), spec.label_values[label]])
    return Place(task, str(folder))
