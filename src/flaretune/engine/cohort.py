"""The clients of a job: who takes part, who is late or gone, and which replies can be used."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flaretune.config.server import ServerConfig
from flaretune.engine import codec
from flaretune.engine.errors import JobFailed
from flaretune.engine.progress import Progress
from flaretune.engine.transport import Transport
from flaretune.methods.exchanged import InitializeResult
from flaretune.methods.message import Message, check_few_shots

log = logging.getLogger("flaretune.server")
Result = TypeVar("Result")

NO_REPLY = "no reply (its own log says why)"
GONE = "gone: nothing was heard of it for long"


class Cohort:
    """Sends tasks to the clients of a job and reads their replies.

    A task goes on without clients that do not reply in time; those that were not ready for the first one join when they
    are, and those that the transport takes for gone are not sent anything until it hears of them again.

    Args:
        transport: reaches them.
        config: the server's options.
        releases_before: the most noised results that a client can have sent in earlier jobs of the run.
        progress: is told of every task.

    Attributes:
        shares: names of all clients, in the order of their shares of a common data set.
        clients: those that take part.
        excluded: those whose replies to the last task were not used, and why.
        dtypes: by client, what its model computes in, as far as it tells.
    """

    def __init__(self, transport: Transport, config: ServerConfig, releases_before: int, progress: Progress):
        self._transport, self._config, self._progress = transport, config, progress
        self._releases_before, self._rounds_sent = releases_before, 0
        self._reference: tuple[str, InitializeResult] | None = None
        self._late: list[tuple[str, Message]] = []
        self._reached: tuple[set[str], set[str]] = set(), set()
        self.shares = sorted(transport.clients(), key=natural_order)
        self.clients = list(self.shares)
        self.needed = min(config.min_clients, len(self.clients))
        self.excluded: dict[str, str] = {}
        self.dtypes: dict[str, str] = {}
        if self.needed < config.min_clients:
            log.warning(
                "min_clients %d, but the job has %d clients: all of them are needed", config.min_clients, self.needed
            )

    def send(
        self, task: str, round_number: int, message: Message, read: Callable[[Message], Result], step: str = ""
    ) -> dict[str, Result]:
        """Send a task to all clients that take part and read their replies.

        Args:
            task: one of `codec.TASKS`.
            round_number: it belongs to.
            message: the task's.
            read: what a reply says; raises ValueError if it cannot be used.
            step: of the task, if it is to be called by that.

        Returns:
            What the usable replies say, in the order of the clients.

        Raises:
            JobFailed: there are too few of them.
            Aborted: the job was ended.
        """
        self._rounds_sent += task == codec.FIT
        called = step or task
        self._progress.sending(called, round_number)
        self.excluded = dict.fromkeys(self.clients, NO_REPLY)
        gone = [client for client in self.clients if self._transport.is_gone(client)]
        self.excluded |= dict.fromkeys(gone, GONE)
        started = time.monotonic()
        asked = [client for client in self.clients if client not in gone] or list(self.clients)
        timeout = self._config.setup_timeout if task == codec.INITIALIZE else self._config.round_timeout
        replies = self._transport.send(task, message, asked, timeout)
        for clients, more in zip(self._reached, (asked, replies), strict=True):
            clients.update(more)
        results = {}
        for client, reply in replies.items():
            try:
                result = read(reply)
                self._check(result, time.monotonic() - started)
                results[client] = result
                self.excluded.pop(client, None)
            except ValueError as error:
                self.exclude(client, round_number, called, str(error))
        results = {client: results[client] for client in self.clients if client in results}
        if len(results) < self.needed:
            why: dict[str, list[str]] = {}
            for client in self.clients:
                if client not in results:
                    why.setdefault(self.excluded[client], []).append(client)
            missing = "; ".join(f"{', '.join(clients)}: {reason}" for reason, clients in why.items())
            raise JobFailed(
                f"round {round_number}: {len(results)} of {len(self.clients)} clients gave a usable {called} reply and "
                f"{self.needed} are needed; without {missing}"
            )
        return results

    def take_bytes(self) -> tuple[float, float]:
        """Bytes since the last call: down, for each client that was sent a task, and up, for each that replied."""
        taken, reached = self._transport.take_bytes(), self._reached
        self._reached = set(), set()
        down, up = (round(n_bytes / len(clients), 1) for n_bytes, clients in zip(taken, reached, strict=True))
        return down, up

    def exclude(self, client: str, round_number: int, task: str, why: str) -> None:
        """Note and say that a client's reply does not count."""
        log.warning("round %d: the %s reply of %s is not used: %s", round_number, task, client, why)
        self.excluded[client] = why

    def begin(self, initialized: Mapping[str, InitializeResult], message: Message) -> None:
        """Go on with the clients that are initialized; those that were not in time get `message` once more meanwhile.

        Raises:
            JobFailed: they were told different things.
        """
        (first, reference), *others = initialized.items()
        for client, result in others:
            if sentence := disagreement(first, reference, client, result):
                raise JobFailed(sentence)
        self._reference = first, reference
        self.dtypes = {client: result.dtype for client, result in initialized.items() if result.dtype}
        late, self.clients = [client for client in self.clients if client not in initialized], list(initialized)
        if late:
            self._reached[0].update(late)
            self._transport.send_in_background(codec.INITIALIZE, message, late, self._is_ready_late)

    def _is_ready_late(self, client: str, reply: Message) -> None:
        self._reached[1].add(client)  # its reply is among the bytes that are counted now
        self._late.append((client, reply))

    def let_in(
        self,
        round_number: int,
        read: Callable[[Message], InitializeResult],
        objection: Callable[[str, InitializeResult], str],
    ) -> list[InitializeResult]:
        """Clients that have become ready since the last task take part from now on; why others may not is logged."""
        joined = []
        while self._late:
            client, reply = self._late.pop(0)
            try:
                result = read(reply)
                why = disagreement(*self._reference, client, result) or objection(client, result)
            except ValueError as error:
                why = str(error)
            if why:
                log.warning("%s is ready late and cannot join: %s", client, why)
                continue
            log.info("%s is ready and joins in round %d", client, round_number)
            self.dtypes |= {client: result.dtype} if result.dtype else {}
            self.clients = [c for c in self.shares if c in {client, *self.clients}]
            joined.append(result)
        return joined

    def _check(self, result: Any, seconds: float) -> None:
        """Check what a client says that a reply has cost, and of how many texts it is, of which reports are made.

        Args:
            result: with `counters` and an `evaluation`, which may be None.
            seconds: since the task was sent; clocks of two machines may differ a little.

        Raises:
            ValueError: more than can be.
        """
        counters, evaluation = result.counters, result.evaluation
        if counters.seconds > 1.01 * seconds + 1:
            raise ValueError(f"'seconds' is {counters.seconds:g}, and the task was sent {seconds:.0f} seconds ago")
        most = self._releases_before + self._rounds_sent
        if counters.releases > most:
            raise ValueError(f"'releases' is {counters.releases}, and it can have sent {most} noised results")
        if evaluation and self._reference:  # an initialize reply has been checked by its own settings
            check_few_shots(self._reference[1].settings, validation_loss=evaluation.n_validation)


def natural_order(name: str) -> list:
    """Sort key that puts site-2 before site-10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]


def disagreement(first: str, reference: InitializeResult, client: str, result: InitializeResult) -> str:
    """In what a client was told something else than the first, as a sentence; "" if in nothing that matters."""
    for part in (name for name, value in reference.settings.items() if isinstance(value, dict)):
        mine, theirs = (
            {k: v for k, v in told.items() if (part, k) != ("model", "name")} if isinstance(told, dict) else {}
            for told in (reference.settings[part], result.settings.get(part))
        )
        differing = [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]
        if differing:
            key = differing[0]
            return (
                f"the clients do not agree on the {part}: {key} is {mine.get(key)!r} at {first} and "
                f"{theirs.get(key)!r} at {client}; give all clients the same"
            )
    return ""
