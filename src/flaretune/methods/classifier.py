"""What a job has left, opened again with its model to classify texts: `load_classifier`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from flaretune.data.load import Examples
from flaretune.errors import UserError, shown
from flaretune.methods.fedbpt import artifact as fedbpt
from flaretune.methods.lpfl import artifact as lpfl
from flaretune.models.progress import Progress, in_silence
from flaretune.tasks import metrics
from flaretune.tasks.spec import Kind, TaskSpec


@dataclass(frozen=True)
class Score:
    """How well predictions agree with labels.

    Attributes:
        metric: the task's.
        value: of the metric, in [0, 1].
        n: number of texts.
        n_by_class, correct_by_class: texts of each class, and those of them that were predicted right.
    """

    metric: str
    value: float
    n: int
    n_by_class: tuple[int, ...]
    correct_by_class: tuple[int, ...]


class Classifier(Protocol):
    """A model with what a job has found for it.

    In bfloat16 the logits depend a little on what else is in a batch (differences between two of them by 0.04 on a
    270M-parameter model), so that of some hundred texts one or two may be labelled otherwise than at a client.
    """

    @property
    def spec(self) -> TaskSpec:
        """The task that it answers for."""

    @property
    def kind(self) -> Kind:
        """Of the model."""

    def probabilities(self, texts: Sequence[Mapping[str, str]], progress: Progress = in_silence) -> np.ndarray:
        """How probable each class is, among the label words, for each text.

        Args:
            texts: N times text column → text.
            progress: gets the batches to go through, and their unit.

        Returns:
            float64, shape (N, C); rows sum to 1.

        Raises:
            UserError: a text column is missing.
        """

    def zero_shot(self, examples: Examples) -> np.ndarray:
        """The same of the model and the template alone, as they were before the job."""


@dataclass(frozen=True)
class Loader:
    """How the results of a method are told from others', read and opened.

    Attributes:
        format: what a result says of its own format.
        noun: what it is called.
        file: the name under which a job leaves it, for messages.
        read: reads and checks it, without its model.
        module: has `open_saved`, and needs torch: imported with the model only.
    """

    format: str
    noun: str
    file: str
    read: Callable[[Path], Any]
    module: str


LOADERS = (
    Loader(
        fedbpt.FORMAT, "prompt", "best_prompt.safetensors", fedbpt.load_prompt, "flaretune.methods.fedbpt.classifier"
    ),
    Loader(lpfl.FORMAT, "adapter", "the folder best_adapter", lpfl.load_adapter, "flaretune.methods.lpfl.classifier"),
)


@dataclass(frozen=True)
class Saved:
    """What a job has left, read and checked, its model not loaded yet."""

    path: Path
    loader: Loader
    artifact: Any

    @property
    def spec(self) -> TaskSpec:
        """The task, with a source that stands for none."""
        return self.artifact.spec

    def open(self, model_name: str | None = None, dtype: str = "auto", device: str = "auto") -> Classifier:
        """Load the model; see `load_classifier`."""
        name = model_name or self.artifact.model["name"]
        return import_module(self.loader.module).open_saved(self.artifact, self.path, name, dtype, device)


def load_saved(path: str | Path) -> Saved:
    """Read what a job has left, a file or a folder, without its model.

    Raises:
        UserError: it is not there, is no result of a job, or was damaged or edited.
    """
    path = Path(path).expanduser()
    names = " or ".join(loader.file for loader in LOADERS)
    if not path.exists():
        old = path.with_name(path.name + ".old")
        before = f"{old} is the one before, left when a save was cut off" if old.exists() else f"a job leaves {names}"
        raise UserError(f"--result {path}: there is no such file or folder; {before}")
    try:
        found = _format_of(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"--result {path}: no result of a job, or a damaged one ({error}); give {names}") from error
    for loader in LOADERS:
        if loader.format == found:
            return Saved(path, loader, loader.read(path))
    known = " or ".join(repr(loader.format) for loader in LOADERS)
    raise UserError(f"--result {path}: its format is {shown(found)}, not {known}; give {names}")


def load_classifier(
    path: str | Path, model_name: str | None = None, *, dtype: str = "auto", device: str = "auto"
) -> Classifier:
    """Open whatever a job has left, with its model, task and settings.

    Args:
        path: the file or folder, such as best_prompt.safetensors or best_adapter.
        model_name: hub id or folder of the model it was found with; default what the result says, which is the place
            at the client that reported it.
        dtype, device: the options of these names; clients choose theirs, so a result holds none.

    Raises:
        UserError: see `load_saved`; or the model cannot be loaded, or is not the one it was found with.
    """
    return load_saved(path).open(model_name, dtype, device)


def _format_of(path: Path) -> Any:
    """What a file's metadata or a folder's description has as ``format``."""
    if path.is_dir():
        return json.loads((path / lpfl.DESCRIPTION).read_text(encoding="utf-8"))["format"]
    with safe_open(path, framework="numpy") as file:
        return (file.metadata() or {}).get("format")


def score(spec: TaskSpec, probabilities: np.ndarray, labels: np.ndarray) -> Score:
    """Compare probabilities, float (N, C), with class ids, int (N,)."""
    predictions = probabilities.argmax(axis=-1)
    value = metrics.value(spec.metric, metrics.count(spec.metric, predictions, labels, spec.positive_class))
    n_by_class = np.bincount(labels, minlength=spec.n_classes)
    correct = np.bincount(labels[predictions == labels], minlength=spec.n_classes)
    return Score(spec.metric, value, len(labels), tuple(n_by_class.tolist()), tuple(correct.tolist()))
