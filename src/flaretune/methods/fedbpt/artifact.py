"""A found prompt as a file: one safetensors file with the search point and, as readable metadata, all it belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flaretune.methods.artifact_parts import PARTS, ResultFile, SavedParts, array_digest
from flaretune.methods.fedbpt import FedBPT
from flaretune.methods.verbalizer.artifact import LearnedHead, read_head


@dataclass(frozen=True, eq=False)
class PromptArtifact(SavedParts):
    """A search point and what turns it into predictions.

    Attributes:
        point: z, float32, shape (d,). The prompt is p₀ + reshape(A z); p₀ and A follow from the options.
        learned: the head that the classes are told by; None where label words tell them.
    """

    kept_in = "prompt file"

    point: np.ndarray
    learned: LearnedHead | None = None


def save_prompt(artifact: PromptArtifact, path: Path) -> None:
    """Write the file, whole or not at all."""
    parts = {part: getattr(artifact, part) for part in PARTS}
    arrays = {"point": np.asarray(artifact.point, dtype=np.float32)}
    if artifact.learned:
        arrays |= artifact.learned.head.arrays()
        parts = {**artifact.learned.parts(), **parts}
    FILE.write(path, arrays, parts)


def load_prompt(path: str | Path) -> PromptArtifact:
    """Read the file back and check that it is what was written.

    Raises:
        UserError: it is not there, is no such file, or was damaged or edited.
    """
    return FILE.read(path, _read)


def _read(arrays: dict[str, np.ndarray], parts: dict[str, Any]) -> PromptArtifact:
    point, head = arrays["point"], {name: values for name, values in arrays.items() if name != "point"}
    artifact = PromptArtifact(point, **{part: parts[part] for part in PARTS})
    n_classes = artifact.spec.n_classes  # read now, so that what is wrong with it is said here
    learned = read_head(head, parts, n_classes, prompt=True) if head else None
    wanted = (artifact.options["intrinsic_dim"],)
    if (learned is None) != (artifact.options.get("verbalizer", "words") == "words"):
        raise ValueError("a head without --verbalizer learned, or none with it")
    if point.dtype != np.float32 or point.shape != wanted or not np.all(np.isfinite(point)):
        raise ValueError(f"its point has shape {point.shape}, not {wanted}, or is not finite float32")
    return replace(artifact, learned=learned)


def _digest(arrays: Mapping[str, np.ndarray]) -> Any:
    """Of a prompt alone, of its numbers alone, as the first version had it."""
    point = arrays.get("point")
    if point is None or point.dtype != np.float32:
        return array_digest(arrays)
    return array_digest({n: a for n, a in arrays.items() if n != "point"}, hashlib.sha256(point.tobytes()))


FILE = ResultFile(FedBPT, _digest)
