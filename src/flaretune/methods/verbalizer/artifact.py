"""A learned verbalizer as a file: one safetensors file with the head and, as readable metadata, all it belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flaretune.errors import UserError
from flaretune.files import atomic_write
from flaretune.methods.artifact_parts import PARTS, check_model, checksum
from flaretune.methods.verbalizer.head import Head, head_of
from flaretune.tasks.saved import read_task
from flaretune.tasks.spec import TaskSpec

FORMAT = "flaretune-verbalizer-1"
ARRAYS = ("bias", "temperature", "weights", "words")
_TEXTS = ("templates", "word_texts", *PARTS)


@dataclass(frozen=True, eq=False)
class VerbalizerArtifact:
    """A head and what turns it into predictions.

    Attributes:
        head: words by template and token id, weights, bias, temperature.
        word_texts: of each of the F words.
        templates: that the model is asked with.
        task, options, model, result: see `fedbpt.artifact.PromptArtifact`.
    """

    head: Head
    word_texts: Sequence[str]
    templates: Sequence[str]
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
        return read_task(self.task, "verbalizer file")


def save_verbalizer(artifact: VerbalizerArtifact, path: Path) -> None:
    """Write the file, whole or not at all."""
    arrays = {name: np.ascontiguousarray(values) for name, values in artifact.head.arrays().items()}
    parts = {name: getattr(artifact, name) for name in _TEXTS}
    texts = {name: json.dumps(value, sort_keys=True, ensure_ascii=False) for name, value in parts.items()}
    metadata = {"format": FORMAT, "sha256": checksum(_digest(arrays), texts), **texts}
    atomic_write(path, save(arrays, metadata))


def load_verbalizer(path: str | Path) -> VerbalizerArtifact:
    """Read the file back and check that it is what was written.

    Raises:
        UserError: it is not there, is no such file, or was damaged or edited.
    """
    if not Path(path).is_file():
        raise UserError(f"verbalizer file {path} does not exist; a job leaves it as best_verbalizer.safetensors")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in ARRAYS}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged or no verbalizer file ({error}); give one that a job has left") from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} is no verbalizer: its format is {metadata.get('format')!r}, not {FORMAT!r}")
    texts = {name: metadata.get(name, "") for name in _TEXTS}
    if metadata.get("sha256") != checksum(_digest(arrays), texts):
        raise UserError(f"{path} was damaged or edited: its contents do not have the sha256 noted in it; copy it anew")
    try:
        artifact = VerbalizerArtifact(head_of(arrays), **{name: json.loads(text) for name, text in texts.items()})
        check_model(artifact.model)
        _check(artifact)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} was written by another version of flaretune ({error!r}); use that one") from error
    return artifact


def _digest(arrays: dict[str, np.ndarray]) -> Any:
    digest = hashlib.sha256()
    for name in ARRAYS:
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest


def _check(artifact: VerbalizerArtifact) -> None:
    """Check that the parts of a file belong together.

    Raises:
        UserError, ValueError, TypeError: they do not.
    """
    head, n_templates = artifact.head, len(artifact.templates)
    if len(head.bias) != artifact.spec.n_classes or len(artifact.word_texts) != len(head.words):
        raise ValueError("its head is not of its task's classes and words")
    for name in ("templates", "word_texts"):
        if not all(isinstance(text, str) for text in getattr(artifact, name)):
            raise TypeError(f"{name} are not all texts")
    if np.any(head.words < 0) or np.any(head.words[:, 0] >= n_templates):
        raise ValueError("a word is of a template that is not there")
    if not all(np.all(np.isfinite(values)) for values in head.arrays().values()):
        raise ValueError("its numbers are not finite")
