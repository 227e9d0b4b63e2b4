"""What the clients of every method begin with: their task, their texts, and what they must agree on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flaretune.config.client import ClientConfig
from flaretune.config.options import as_dict
from flaretune.errors import UserError
from flaretune.tasks.checks import needs_label_words
from flaretune.tasks.spec import Kind, TaskSpec, load_task, task_table

if TYPE_CHECKING:
    from flaretune.data.shares import ClientData
    from flaretune.methods.base import ClientContext

log = logging.getLogger("flaretune.client")


@dataclass(eq=False)
class Labelled:
    """Texts as a method's model takes them, and their class ids, int64, shape (N,)."""

    texts: Any
    labels: np.ndarray


def task_of(config: ClientConfig) -> TaskSpec:
    """The task that a client is told.

    Raises:
        UserError: there is no such task, something in its file is wrong, or it lacks the label words that the method
            needs.
    """
    spec = load_task(config.task)
    if config.needs_label_words and not spec.has_label_words:
        raise UserError(needs_label_words(config.method, f" of task {spec.name!r}"))
    return spec


def load_data(config: ClientConfig, context: ClientContext, unlabelled: int = 0) -> tuple[TaskSpec, ClientData]:
    """The task, and this client's examples of it.

    Args:
        config: the client's options.
        context: its name, and that of the others.
        unlabelled: unlabelled texts, see `Split` and `own_data`.

    Raises:
        UserError: whatever the user can correct.
    """
    from flaretune.data.shares import Split, own_data, share_of_common_set

    spec = task_of(config)
    if config.device != "auto":  # before the data is read: what is wrong is said at once
        from flaretune.models.device import resolve_device

        resolve_device(config.device)
    name, clients = context.name, list(context.clients)
    evaluators = evaluation_clients(config.eval_clients, clients)
    if config.data_path:
        return spec, own_data(
            spec, config.data_path, config.k_shot, config.seed, name in evaluators, unlabelled=unlabelled
        )
    split = Split(config.k_shot, len(clients), bool(config.iid), config.alpha_dir, config.seed, unlabelled=unlabelled)
    test_part = (evaluators.index(name), len(evaluators)) if name in evaluators else None
    return spec, share_of_common_set(spec, config.dataset or None, split, clients.index(name), test_part)


def evaluation_clients(wanted: str, clients: Sequence[str]) -> list[str]:
    """The clients that evaluate on test data: ``first``, ``all``, or those named, as far as they are in the job.

    Raises:
        UserError: none of the names is a client of the job.
    """
    if wanted in ("first", "all"):
        return list(clients) if wanted == "all" else list(clients[:1])
    names = list(dict.fromkeys(name.strip() for name in wanted.split(",")))  # each once: they share the test data
    absent = [name for name in names if name not in clients]
    if absent:
        log.warning("--eval_clients: %s not in this job, whose clients are %s", ", ".join(absent), ", ".join(clients))
    present = [name for name in names if name in clients]
    if not present:
        raise UserError(
            f"--eval_clients {wanted}: none of these is a client of this job ({', '.join(clients)}); "
            "use their names, first, or all"
        )
    return present


def settings_of(config: ClientConfig, spec: TaskSpec, kind: Kind, hidden_size: int, **more: Any) -> dict[str, Any]:
    """What the clients of a job must agree on; plain JSON values without paths of data.

    Args:
        config: the client's options.
        spec: the task.
        kind: of the model.
        hidden_size: of its embeddings.
        more: further entries of the method.
    """
    task = {key: value for key, value in task_table(spec).items() if key != "source"}
    return {
        "method": config.method,
        "options": {name: value for name, value in as_dict(config).items() if name not in config.client_options},
        "task": {"name": spec.name, **task},
        "model": {"name": config.model_name, "kind": kind, "hidden_size": hidden_size},
        **more,
    }
