"""The task that a message or a saved result holds: without its data source, which stays where the data is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flaretune.tasks.spec import TaskSpec, parse_task

# A saved result names no data, since a client's paths and data set stay at the client; a task must name some.
_NO_SOURCE = {"train": "train", "test": "test"}


def read_task(task: Mapping[str, Any], kind: str) -> TaskSpec:
    """The task of a saved result, with a source that stands for none.

    Args:
        task: as `tasks.spec.task_table` gives it, with its name and without its data source.
        kind: what messages call the result, such as "prompt file".

    Raises:
        UserError: its parts do not fit together.
        KeyError, TypeError: it has no name.
    """
    if not isinstance(task["name"], str):
        raise TypeError(f"the task's name is {task['name']!r}")
    values = {key: value for key, value in task.items() if key != "name"}
    source = {"hub": f"none (a {kind} names no data)", **_NO_SOURCE}
    return parse_task({**values, "source": source}, task["name"], place=f"the task in the {kind}")
