"""A learned verbalizer as a file: one safetensors file with the head and, as readable metadata, all it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flaretune.methods.artifact_parts import LEARNED_PARTS, PARTS, ResultFile, SavedParts, array_digest
from flaretune.methods.verbalizer import Verbalizer
from flaretune.methods.verbalizer.head import Head, head_of


@dataclass(frozen=True, eq=False)
class LearnedHead:
    """A head, and what its words are.

    Attributes:
        head: words by template and token id, weights, bias, temperature.
        word_texts: of each of the F words.
        templates: that the model is asked with.
    """

    head: Head
    word_texts: Sequence[str]
    templates: Sequence[str]

    def parts(self) -> dict[str, Any]:
        """What is saved of it besides its arrays."""
        return {name: list(getattr(self, name)) for name in LEARNED_PARTS}


@dataclass(frozen=True, eq=False)
class VerbalizerArtifact(SavedParts):
    """A head and what turns it into predictions."""

    kept_in = "verbalizer file"

    learned: LearnedHead


def save_verbalizer(artifact: VerbalizerArtifact, path: Path) -> None:
    """Write the file, whole or not at all."""
    parts = {part: getattr(artifact, part) for part in PARTS}
    FILE.write(path, artifact.learned.head.arrays(), {**artifact.learned.parts(), **parts})


def load_verbalizer(path: str | Path) -> VerbalizerArtifact:
    """Read the file back and check that it is what was written.

    Raises:
        UserError: it is not there, is no such file, or was damaged or edited.
    """
    return FILE.read(path, _read)


def _read(arrays: dict[str, np.ndarray], parts: dict[str, Any]) -> VerbalizerArtifact:
    n_classes = len(parts["task"]["label_values"])
    artifact = VerbalizerArtifact(read_head(arrays, parts, n_classes), **{part: parts[part] for part in PARTS})
    artifact.spec  # noqa: B018  read now, so that what is wrong with it is said here
    return artifact


def read_head(
    arrays: Mapping[str, np.ndarray], parts: Mapping[str, Any], n_classes: int, prompt: bool = False
) -> LearnedHead:
    """A head as it was saved, once its parts are known to belong together.

    Args:
        arrays, parts: of the file.
        n_classes: C of its task.
        prompt: whether words behind a prompt, the template T, are among its own.

    Raises:
        ValueError, TypeError, KeyError: they do not belong together.
    """
    learned = LearnedHead(head_of(arrays), **{name: parts[name] for name in LEARNED_PARTS})
    head, n_templates = learned.head, len(learned.templates) + prompt
    if len(head.bias) != n_classes or len(learned.word_texts) != len(head.words):
        raise ValueError("its head is not of its task's classes and words")
    for name in LEARNED_PARTS:
        if not all(isinstance(text, str) for text in parts[name]):
            raise TypeError(f"{name} are not all texts")
    if np.any(head.words < 0) or np.any(head.words[:, 0] >= n_templates):
        raise ValueError("a word is of a template that is not there")
    if not all(np.all(np.isfinite(values)) for values in head.arrays().values()):
        raise ValueError("its numbers are not finite")
    return learned


FILE = ResultFile(Verbalizer, array_digest)
