"""A found prompt as a file: one safetensors file with the search point and, as readable metadata, all it belongs to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flaretune.errors import UserError
from flaretune.tasks.spec import TaskSpec, parse_task

FORMAT = "flaretune-fedbpt-prompt-1"
PARTS = ("task", "options", "model", "result")  # of the metadata, each in JSON

# A prompt file names no data, since a site's paths and data set stay at the site; a task must name some.
_NO_SOURCE = {"hub": "none (a prompt file names no data)", "train": "train", "test": "test"}


@dataclass(frozen=True, eq=False)
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

    @property
    def spec(self) -> TaskSpec:
        """The task, with a source that stands for none.

        Raises:
            UserError: its parts do not fit together.
        """
        values = {key: value for key, value in self.task.items() if key != "name"}
        return parse_task({**values, "source": _NO_SOURCE}, self.task["name"], place="the task in the prompt file")


def save_prompt(artifact: PromptArtifact, path: Path) -> None:
    """Write the file, whole or not at all."""
    point = np.ascontiguousarray(artifact.point, dtype=np.float32)
    texts = {part: json.dumps(getattr(artifact, part), sort_keys=True) for part in PARTS}
    metadata = {"format": FORMAT, "sha256": _checksum(point, texts), **texts}
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(save({"point": point}, metadata))
    os.replace(partial, path)


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
    if point.dtype != np.float32 or metadata.get("sha256") != _checksum(point, texts):
        raise UserError(f"{path} was damaged or edited: its contents do not have the sha256 noted in it; copy it anew")
    try:
        artifact = PromptArtifact(point, **{part: json.loads(text) for part, text in texts.items()})
        artifact.spec  # noqa: B018  read now, so that what is wrong with it is said here
        dim, _ = artifact.options["intrinsic_dim"], [artifact.model[key] for key in ("name", "kind", "hidden_size")]
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} was written by another version of flaretune ({error!r}); use that one") from error
    if point.shape != (dim,) or not np.all(np.isfinite(point)):
        raise UserError(f"{path} holds no prompt: its point has shape {point.shape}, not ({dim},), or is not finite")
    return artifact


def _checksum(point: np.ndarray, texts: Mapping[str, str]) -> str:
    """Of all that the file holds: bits that flip in the point would otherwise pass for another prompt."""
    digest = hashlib.sha256(point.tobytes())
    for part in PARTS:
        digest.update(f"\n{part}\n{texts[part]}".encode())
    return digest.hexdigest()
