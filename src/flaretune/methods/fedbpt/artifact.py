"""A found prompt as a file: one safetensors file with the search point and, as readable metadata, all it belongs to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flaretune.errors import UserError
from flaretune.files import atomic_write
from flaretune.methods.artifact_parts import PARTS, check_model, checksum
from flaretune.tasks.saved import read_task
from flaretune.tasks.spec import TaskSpec

FORMAT = "flaretune-fedbpt-prompt-1"


@dataclass(frozen=True, eq=False)
class PromptArtifact:
    """A search point and what turns it into answers.

    Attributes:
        point: z, float32, shape (d,). The prompt is p₀ + reshape(A z); p₀ and A follow from the options.
        task: the task, as `tasks.spec.task_table` gives it, with its name and without its data source.
        options: the clients' options that they agreed on.
        model: name, kind and hidden size of the model it was found with.
        result: round, development and test accuracy, and what else is worth keeping; plain JSON values.
    """

    point: np.ndarray
    task: dict[str, Any]
    options: dict[str, Any]
    model: dict[str, Any]
    result: dict[str, Any]

    @property
    def spec(self) -> TaskSpec:
        """The task, with a source that stands for none.

        Raises:
            UserError: its parts do not fit together.
        """
        return read_task(self.task, "prompt file")


def save_prompt(artifact: PromptArtifact, path: Path) -> None:
    """Write the file, whole or not at all."""
    point = np.ascontiguousarray(artifact.point, dtype=np.float32)
    texts = {part: json.dumps(getattr(artifact, part), sort_keys=True) for part in PARTS}
    metadata = {"format": FORMAT, "sha256": checksum(hashlib.sha256(point.tobytes()), texts), **texts}
    atomic_write(path, save({"point": point}, metadata))


def load_prompt(path: str | Path) -> PromptArtifact:
    """Read the file back and check that it is what was written.

    Raises:
        UserError: it is not there, is no such file, or was damaged or edited.
    """
    if not Path(path).is_file():
        raise UserError(f"prompt file {path} does not exist; a job leaves it as best_prompt.safetensors")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            point = file.get_tensor("point")
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        # not only SafetensorError: number formats that numpy lacks end in errors of several kinds
        raise UserError(f"{path} is damaged or no prompt file ({error}); give one that a job has left") from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} is not a prompt of FedBPT: its format is {metadata.get('format')!r}, not {FORMAT!r}")
    texts = {part: metadata.get(part, "") for part in PARTS}
    if point.dtype != np.float32 or metadata.get("sha256") != checksum(hashlib.sha256(point.tobytes()), texts):
        raise UserError(f"{path} was damaged or edited: its contents do not have the sha256 noted in it; copy it anew")
    try:
        parts = {part: json.loads(text) for part, text in texts.items()}
        if wrong := [part for part, value in parts.items() if not isinstance(value, dict)]:
            raise TypeError(f"{wrong[0]} is no table")
        artifact = PromptArtifact(point, **parts)
        artifact.spec  # noqa: B018  read now, so that what is wrong with it is said here
        check_model(artifact.model)
        dim = artifact.options["intrinsic_dim"]
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} was written by another version of flaretune ({error!r}); use that one") from error
    if point.shape != (dim,) or not np.all(np.isfinite(point)):
        raise UserError(f"{path} holds no prompt: its point has shape {point.shape}, not ({dim},), or is not finite")
    return artifact
