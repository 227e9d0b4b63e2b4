"""Messages between a client and the model server: JSON, one kind each way.

Black box and texts are named by a hash of what they are (a *handle*). Their contents travel when the server wants
them, so that a server that was restarted, or another of its workers, goes on where the last one stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flaretune.models.prompt_settings import PromptSettings
from flaretune.tasks.spec import TaskSpec, task_table

VERSION = 2
QUERY_PATH, HEALTH_PATH = "/ask", "/health"


@dataclass(frozen=True)
class Named:
    """Something with a handle; `content` is plain JSON values, None where only the handle was sent."""

    handle: str
    content: dict[str, Any] | None

    def message(self, in_full: bool) -> dict[str, Any]:
        """For a message, with its content or without."""
        return {"handle": self.handle, "content": self.content if in_full else None}


def named(content: Mapping[str, Any]) -> Named:
    """Give a handle to a content: the sha256 of its JSON."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return Named(hashlib.sha256(text.encode()).hexdigest(), dict(content))


def black_box_content(
    model_name: str, dtype: str, spec: TaskSpec, settings: PromptSettings, quantize: str = "none"
) -> dict[str, Any]:
    """What a black box is made of, without the task's data source, which stays at the client."""
    task = {key: value for key, value in task_table(spec).items() if key != "source"}
    return {
        "model_name": model_name,
        "dtype": dtype,
        "quantize": quantize,
        "task": {"name": spec.name, **task},
        "settings": asdict(settings),
    }


def texts_content(
    texts: Sequence[Mapping[str, str]], columns: Sequence[str], *, prompt: bool, perturbed: tuple[float, int] | None
) -> dict[str, Any]:
    """Texts to register: no labels.

    Args:
        texts: of each example, text column → text.
        prompt: False for the model and the template alone.
        perturbed: rate and seed of `PromptedModel.register_perturbed`, or None.
    """
    rows = [[row[column] for column in columns] for row in texts]
    return {"columns": list(columns), "rows": rows, "prompt": prompt, "perturbed": list(perturbed or [])}


@dataclass(frozen=True, eq=False)
class Query:
    """A message to the model server.

    Attributes:
        texts: which; None where only the model's facts are wanted.
        points: float64, shape (λ, d); None without texts.
    """

    black_box: Named
    texts: Named | None
    points: np.ndarray | None


def query_message(query: Query, in_full: bool) -> dict[str, Any]:
    """As JSON values; `in_full` with the contents of black box and texts."""
    return {
        "version": VERSION,
        "black_box": query.black_box.message(in_full),
        "texts": query.texts.message(in_full) if query.texts else None,
        "points": query.points.tolist() if query.points is not None else None,
    }


def read_query(message: Any) -> Query:
    """Read a message to the model server.

    Raises:
        ValueError: it is none; says what is wrong.
    """
    try:
        if message["version"] != VERSION:
            raise ValueError(f"it is of version {message['version']!r}, and this model server speaks version {VERSION}")
        points = None if message["points"] is None else np.array(message["points"], dtype=np.float64)
        texts = None if message["texts"] is None else _read_named(message["texts"])
        query = Query(_read_named(message["black_box"]), texts, points)
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"it lacks an entry or has one of another type ({error})") from error
    if (query.texts is None) != (points is None):
        raise ValueError("it has texts without points, or points without texts")
    if points is not None and (points.ndim != 2 or points.size == 0 or not np.all(np.isfinite(points))):
        raise ValueError(f"its points, of shape {points.shape}, must be rows of finite numbers")
    return query


def _read_named(entry: Mapping[str, Any]) -> Named:
    handle, content = entry["handle"], entry["content"]
    if not isinstance(handle, str) or not isinstance(content, dict | None):
        raise TypeError("a handle or a content of another type")
    if content is not None and named(content).handle != handle:
        raise ValueError("a content does not have the sha256 that names it")
    return Named(handle, content)


def logits_message(logits: np.ndarray) -> list:
    """Label-word logits, float32 (λ, N, C), as JSON values, which hold float32 exactly."""
    return logits.astype(np.float64).tolist()


def read_logits(values: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """Read a reply's logits, float32.

    Raises:
        ValueError: it is no numbers, or has another shape than the query.
    """
    try:
        with np.errstate(over="ignore"):  # the search refuses what is not finite
            logits = np.array(values, dtype=np.float32)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"it holds something else than numbers ({error})") from error
    if logits.shape != shape:
        raise ValueError(f"it holds numbers of shape {logits.shape}, and the query was of shape {shape}")
    return logits
