"""A found prompt as a file: one safetensors file with the search point and, as readable metadata, all it belongs to."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from flaretune.errors import UserError

FORMAT = "flaretune-fedbpt-prompt-1"


@dataclass(frozen=True)
class PromptArtifact:
    """A search point and what turns it into answers.

    Attributes:
        point: z, float32, shape (d,). The prompt is p₀ + reshape(A z); p₀ and A follow from the options.
        task: the task, as `tasks.spec.task_table` gives it, with its name and without its data source.
        options: the sites' options that they agreed on.
        model: name, kind and hidden size of the model it was found with.
        result: round, development and test accuracy, and what else is worth keeping; plain JSON values.
    """

    point: np.ndarray
    task: dict[str, Any]
    options: dict[str, Any]
    model: dict[str, Any]
    result: dict[str, Any]


def save_prompt(artifact: PromptArtifact, path: Path) -> None:
    """Write the file, whole or not at all."""
    record = asdict(artifact)
    point = np.ascontiguousarray(record.pop("point"), dtype=np.float32)
    metadata = {"format": FORMAT, **{key: json.dumps(value, sort_keys=True) for key, value in record.items()}}
    partial = path.with_name(path.name + ".partial")
    save_file({"point": point}, partial, metadata=metadata)
    os.replace(partial, path)


def load_prompt(path: str | Path) -> PromptArtifact:
    """Read the file back and check it.

    Raises:
        UserError: it is not there, is no such file, or its parts do not fit together.
    """
    if not Path(path).is_file():
        raise UserError(f"prompt file {path} does not exist; a job leaves it as best_prompt.safetensors")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            point = file.get_tensor("point") if "point" in file.keys() else None  # noqa: SIM118
        if metadata.get("format") != FORMAT or point is None:
            raise UserError(
                f"{path} is not a prompt of FedBPT: its format is {metadata.get('format')!r}, not {FORMAT!r}"
            )
        record = {key: json.loads(metadata[key]) for key in ("task", "options", "model", "result")}
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged or no prompt file: {error}") from error
    dim = record["options"].get("intrinsic_dim")
    if point.dtype != np.float32 or point.shape != (dim,) or not np.all(np.isfinite(point)):
        raise UserError(
            f"{path} is damaged: its point has shape {point.shape}, its options say ({dim},) finite numbers"
        )
    return PromptArtifact(point, **record)
