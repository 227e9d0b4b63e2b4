"""Using a found prompt: its model opened again, and asked about texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaretune.config import SiteConfig, build
from flaretune.data.columns import read_file
from flaretune.data.load import Examples
from flaretune.errors import UserError
from flaretune.fedbpt.artifact import load_prompt
from flaretune.models.prompted import PromptedModel, PromptSettings, open_prompted_model
from flaretune.tasks import metrics
from flaretune.tasks.spec import TaskSpec


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


def open_artifact(
    path: str | Path, model_name: str | None = None, dtype: str = "bfloat16", device: str = "auto"
) -> tuple[PromptedModel, np.ndarray]:
    """Open a prompt file with its model, task and settings.

    Args:
        path: the file.
        model_name: hub id or folder of the model it was found with; default what the file says, which is the
            place at the site that reported it.
        dtype: number format to compute in. Sites choose theirs, so the file holds none; bfloat16 is their default.
        device: see the option ``--device``.

    Returns:
        The model made ready for the task, and the search point, float32, shape (d,).

    Raises:
        UserError: the file is no prompt, or the model cannot be loaded or is not the one it was found with.
    """
    artifact = load_prompt(path)
    try:
        build(SiteConfig, artifact.options)  # checks the values
        settings = build(PromptSettings, artifact.options)
    except TypeError as error:
        raise UserError(f"{path} was written by another version of flaretune ({error}); use that one") from error
    name = model_name or artifact.model["name"]
    prompted = open_prompted_model(artifact.spec, name, settings, dtype=dtype, device=device)
    found = {"kind": prompted.pretrained.kind, "hidden_size": prompted.black_box.hidden_size}
    for key, value in found.items():
        if value != artifact.model[key]:
            raise UserError(
                f"--model_name {name}: its {key.replace('_', ' ')} is {value}, but the prompt was found with "
                f"{artifact.model['name']}, where it is {artifact.model[key]}; give that model"
            )
    return prompted, artifact.point


def label_probabilities(prompted: PromptedModel, point: np.ndarray, texts: Sequence[Mapping[str, str]]) -> np.ndarray:
    """How probable each class is, among the label words, for each text.

    In bfloat16 the logits depend a little on what else is in a batch (differences between two of them by 0.04 on a
    270M-parameter model), so that of some hundred texts one or two may be labelled otherwise than at a site.

    Args:
        prompted: the model.
        point: a search point, float, shape (d,).
        texts: N times text column → text.

    Returns:
        float64, shape (N, C); rows sum to 1.

    Raises:
        UserError: a text column is missing.
    """
    if not texts:
        return np.empty((0, prompted.spec.n_classes))
    encoded = [prompted.encoder.encode(columns) for columns in texts]
    return softmax(prompted.black_box.label_logits(point[None], prompted.black_box.register(encoded, reuse=False))[0])


def zero_shot_probabilities(prompted: PromptedModel, examples: Examples) -> np.ndarray:
    """The same of the model and the template alone, without any prompt."""
    return softmax(prompted.zero_shot_logits(examples))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis, in float64."""
    shifted = np.asarray(logits, dtype=np.float64)
    powers = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def score(spec: TaskSpec, probabilities: np.ndarray, labels: np.ndarray) -> Score:
    """Compare probabilities, float (N, C), with class ids, int (N,)."""
    predictions = probabilities.argmax(axis=-1)
    value = metrics.value(spec.metric, metrics.count(spec.metric, predictions, labels, spec.positive_class))
    n_by_class = np.bincount(labels, minlength=spec.n_classes)
    correct = np.bincount(labels[predictions == labels], minlength=spec.n_classes)
    return Score(spec.metric, value, len(labels), tuple(n_by_class.tolist()), tuple(correct.tolist()))


def given_texts(spec: TaskSpec, texts: Sequence[str], place: str = "the command line") -> list[dict[str, str]]:
    """Texts that stand alone, for a task of one text column; `place` is where they are from, for messages.

    Raises:
        UserError: the task has more columns, or a text is empty.
    """
    if len(spec.text_columns) != 1:
        raise UserError(
            f"task {spec.name!r} has the text columns {', '.join(spec.text_columns)}, so a text alone is not enough; "
            "give a CSV, JSONL or Parquet file that has them with --file"
        )
    return _checked([{spec.text_columns[0]: text} for text in texts], place)


def texts_of_file(spec: TaskSpec, path: str | Path) -> list[dict[str, str]]:
    """Texts of a data file with the task's text columns, or, for a task of one, of the lines of a ``.txt`` file.

    Blank lines of a ``.txt`` file are left out.

    Raises:
        UserError: the file cannot be read, lacks a column, or has an empty text or none.
    """
    path = Path(path).expanduser()
    if path.suffix == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); check its path") from error
        return given_texts(spec, [line for line in lines if line.strip()], str(path))
    columns = read_file(path, spec.text_columns)
    rows = zip(*(columns.values[column] for column in spec.text_columns), strict=True)
    return _checked([dict(zip(spec.text_columns, row, strict=True)) for row in rows], columns.place)


def _checked(texts: list[dict[str, str]], place: str) -> list[dict[str, str]]:
    if not texts:
        raise UserError(f"{place} has no text; give at least one")
    for number, columns in enumerate(texts, start=1):
        for column, text in columns.items():
            if not isinstance(text, str) or not text.strip():
                raise UserError(
                    f"text {number} of {place} is {text!r} in column {column!r}; every row needs a text there"
                )
    return texts
