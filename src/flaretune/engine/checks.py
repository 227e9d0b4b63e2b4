"""Checks of what a client says of itself, before anything is done by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flaretune.config.options import check_values
from flaretune.errors import shown
from flaretune.methods.artifact_parts import check_model
from flaretune.methods.base import Method
from flaretune.methods.exchanged import Arrays
from flaretune.methods.message import read_counts
from flaretune.tasks.metrics.base import Metric
from flaretune.tasks.metrics.registry import find_metric
from flaretune.tasks.saved import read_task


def check_settings(settings: Mapping[str, Any], method: Method) -> None:
    """Check that a client's settings are such as a client of this method has, before anything is done by them.

    Raises:
        ValueError: something is missing or out of its range.
        KeyError, TypeError, AttributeError: something is of another type.
    """
    config = method.client_config
    if settings["method"] != method.title:
        raise ValueError(f"it is a client of {shown(settings['method'])}, and the job is one of {method.title}")
    options = settings["options"]
    wanted = set(config.model_fields) - set(config.client_options)
    if set(options) != wanted:
        raise ValueError(f"its options differ from those of {method.title} in {sorted(set(options) ^ wanted)[:5]}")
    check_values(config, options)
    read_task(settings["task"], "initialize reply")
    check_model(settings["model"])
    method.check_settings(settings)


@dataclass(frozen=True)
class Counts:
    """What counts of a job's task look like.

    Attributes:
        metric: the task's.
        n: how many numbers they are.
    """

    metric: Metric
    n: int

    def read(self, arrays: Arrays, name: str, n_examples: int | None = None) -> np.ndarray:
        """Counts that can be, int64, shape (n,)."""
        counts = read_counts(arrays, name, self.n)
        self.metric.check_possible(counts, n_examples)
        return counts


def counts_of(settings: Mapping[str, Any]) -> Counts:
    """Those of the task that the clients agree on."""
    metric = find_metric(settings["task"]["metric"])
    return Counts(metric, metric.n_counts(len(settings["task"]["label_values"])))


def check_few_shots(settings: Mapping[str, Any], **sizes: int) -> None:
    """Check that a client has not more labelled texts of a kind than k for each class.

    Raises:
        ValueError: it says that it has; names the field.
    """
    most = settings["options"]["k_shot"] * len(settings["task"]["label_values"])
    for name, size in sizes.items():
        if size > most:
            raise ValueError(f"{name!r} tells of {size} texts, and --k_shot gives a client {most} at the most")
