"""Whole jobs in the test's own process, without NVFlare."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from flaretune.config.client import ClientConfig
from flaretune.config.options import build
from flaretune.engine.errors import JobFailed
from flaretune.engine.records import RoundRecord, scalars
from flaretune.engine.results import read_summary
from flaretune.engine.rounds import Job
from flaretune.engine.transport import InProcessTransport
from flaretune.engine.worker import Worker
from flaretune.errors import UserError
from flaretune.methods.base import Method
from flaretune.methods.message import Message

# (client, task, round, reply) → what is sent in its place; None for nothing.
Change = Callable[[str, str, int, Message], Message | None]


@dataclass
class Told:
    """What was said in a job.

    Attributes:
        tasks: (task, round, message) in the order in which they were sent.
        replies: (client, task, round, message) as the clients sent them.
        records: of the finished rounds.
        failure: why the job failed; "" if it did not.
        client_failures: why clients had nothing to send, by client.
    """

    tasks: list[tuple[str, int, Message]] = field(default_factory=list)
    replies: list[tuple[str, str, int, Message]] = field(default_factory=list)
    records: list[RoundRecord] = field(default_factory=list)
    failure: str = ""
    client_failures: dict[str, str] = field(default_factory=dict)

    @property
    def scalars(self) -> list[tuple[str, float, int]]:
        """(tag, value, round) for TensorBoard."""
        return [(tag, value, record.round) for record in self.records for tag, value in scalars(record).items()]


class RecordingTransport(InProcessTransport):
    """Notes every task."""

    def __init__(self, handlers, told: Told):
        super().__init__(handlers)
        self._told = told

    def send(self, task, sent, clients, timeout):
        self._told.tasks.append((task, sent.fields["round"], sent))
        return super().send(task, sent, list(reversed(clients)), timeout)  # replies come in any order


@functools.cache
def _read(folder: str, changed: int, *how: Any) -> Any:
    from flaretune.models.load import load_pretrained  # here, so that tests without a model start without torch

    return load_pretrained(folder, *how)


def _read_once(name: str, *how: Any) -> Any:
    """What `load_pretrained` gives, read from the disk by the first client that asks; the others get copies."""
    config = Path(name) / "config.json"
    return copy.deepcopy(_read(name, config.stat().st_mtime_ns if config.is_file() else 0, *how))


@contextmanager
def reading_models_once() -> Iterator[None]:
    """In a job's own processes each reads the model; here most of a short job's time would be that."""
    openers = ("models.prompted", "models.tuned", "methods.verbalizer.open")
    with ExitStack() as stack:
        for opener in openers:
            stack.enter_context(mock.patch(f"flaretune.{opener}.load_pretrained", _read_once))
        yield


def run_job(
    method: Method,
    configs: Mapping[str, ClientConfig],
    folder: Path,
    *,
    change: Change = lambda _client, _task, _round, reply: reply,
    worker: Callable[..., Callable[[str, Message], Message | None]] = Worker,
    anew: bool = False,
    **server: Any,
) -> Told:
    """Run a job; the results are in `folder`.

    Args:
        method: whose.
        configs: of the clients, by name.
        folder: of the results.
        change: what happens to replies on their way.
        worker: makes what handles a client's tasks.
        anew: start a client's process anew for each task.
        server: options of the server.
    """
    told = Told()

    def handler(name: str):
        def start():
            return worker(method, configs[name], name, folder / "states", folder / "runs")

        running = start()

        def handle(task: str, message: Message) -> Message | None:
            round_number = message.fields["round"]
            try:
                reply = (start() if anew else running)(task, message)
            except (UserError, FloatingPointError) as error:
                told.client_failures[name] = str(error)
                return None
            told.replies.append((name, task, round_number, reply))
            return change(name, task, round_number, reply)

        return handle

    transport = RecordingTransport({name: handler(name) for name in configs}, told)
    try:
        with reading_models_once():
            Job(method, build(method.server_config, server), transport, folder, told.records.append).run()
    except JobFailed as error:
        told.failure = str(error)
    return told


def no_replies_from(round_number: int) -> Change:
    """A `change` of replies by which the server is stopped in this round."""
    return lambda client, task, n, reply: None if n >= round_number else reply


def assert_same_rounds(found: Path, expected: Path, *more: str) -> None:
    """Two folders of results tell of the same rounds, with the same numbers; `more` are keys of a method's own."""
    found, expected = read_summary(found), read_summary(expected)
    for key in ("test_accuracy", "validation_accuracy", "best_round", "zero_shot_accuracy", *more):
        assert found[key] == expected[key]
    for key in ("round", "accuracy", "validation_accuracy", "validation_loss", "metrics", "client_metrics"):
        assert [r[key] for r in found["rounds"]] == [r[key] for r in expected["rounds"]]
