"""What an LP-FL job starts from: an earlier run's adapter, or what its clients have drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flaretune.errors import UserError
from flaretune.methods.artifact_parts import saved_prior
from flaretune.methods.lpfl.artifact import AdapterArtifact, load_adapter

Arrays = Mapping[str, np.ndarray]


def most_common(drawn: Sequence[Arrays]) -> Arrays:
    """Of arrays that M clients have drawn from the job's seed, those that most have, to the bit."""
    bits = [tuple(arrays[name].tobytes() for name in sorted(arrays)) for arrays in drawn]
    return drawn[bits.index(Counter(bits).most_common(1)[0][0])]


def adapter_to_go_on_from(
    folder: str, settings: Mapping[str, Any], initial: Arrays
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """The arrays of an earlier run's adapter, and the prior of the classes that it was trained with, or None.

    Args:
        folder: the adapter's.
        settings: what the clients of this job agree on.
        initial: the new adapter that they would start from; empty where every parameter is trained.

    Raises:
        UserError: it is not there, or does not fit.
    """
    try:
        earlier = load_adapter(folder)
        arrays = _fitting_arrays(earlier, folder, settings, initial)
        prior = saved_prior(earlier.result, earlier.spec.n_classes)
        if prior is not None and _asked(earlier.task) != _asked(settings["task"]):
            raise UserError(f"{folder} is calibrated for the label words of another task; give one of this task")
    except UserError as error:
        raise UserError(f"--init_adapter: {error}") from error
    if prior is None and settings["options"]["calibrate"] == "batch":
        raise UserError(f"--init_adapter: {folder} was trained with --calibrate none; go on with that")
    return arrays, prior


def _asked(task: Mapping[str, Any]) -> list[Any]:
    """What of a task decides which words a model prefers."""
    return [task.get(key) for key in ("label_values", "masked", "causal")]


def _fitting_arrays(
    earlier: AdapterArtifact, folder: str, settings: Mapping[str, Any], initial: Arrays
) -> dict[str, np.ndarray]:
    """The arrays of an earlier run's adapter, to go on from.

    Args:
        earlier: the adapter, of `folder`.
        settings: what the clients of this job agree on.
        initial: the new adapter that they would start from; empty where every parameter is trained.

    Raises:
        UserError: it is of another model, shape or scale.
    """
    ours = {name: values.shape for name, values in initial.items()}
    ours = ours or {name: tuple(shape) for name, shape in settings["parameters"].items()}
    theirs = {name: values.shape for name, values in earlier.arrays.items()}
    if ours != theirs:
        name = next(name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name))
        raise UserError(
            f"{folder} does not fit this job: {name} has the shape {theirs.get(name)} there and {ours.get(name)} at "
            "the clients; start from an adapter of the same model, rank and target modules"
        )
    told, before = (config.get("lora_alpha") for config in (settings["adapter"], earlier.adapter_config or {}))
    if told != before:
        raise UserError(
            f"{folder} does not fit this job: it was trained with --lora_alpha {before} and the clients were told "
            f"{told}, by which it would be scaled otherwise; give them the same"
        )
    return earlier.arrays
