"""How messages get from the server to the clients and back: what the round loop needs of it, and one within a process.

`flare.transport` is NVFlare's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from flaretune.methods.message import Message

# Handles a task at a client: (task, message) → reply; None for a client that does not reply.
Handler = Callable[[str, Message], Message | None]
Arrived = Callable[[str, Message], None]  # a reply is there: (client, message)


class Aborted(Exception):
    """Whoever runs the job has ended it."""


class Transport(Protocol):
    """Sends tasks to clients and brings their replies."""

    def clients(self) -> list[str]:
        """Names of the job's clients."""

    def send(self, task: str, sent: Message, clients: Sequence[str], timeout: float) -> dict[str, Message]:
        """Send a task to clients and wait for their replies.

        Args:
            task: its name.
            sent: the message.
            clients: who gets it.
            timeout: seconds after which replies that are not there are no longer waited for.

        Returns:
            The replies, by client.

        Raises:
            Aborted: the job was ended meanwhile.
        """

    def send_in_background(self, task: str, sent: Message, clients: Sequence[str], arrived: Arrived) -> None:
        """Send a task to clients without waiting; `arrived` is called with each reply, whenever it comes."""

    def is_gone(self, client: str) -> bool:
        """Whether nothing was heard of a client for so long that it need not be waited for."""

    def take_bytes(self) -> tuple[int, int]:
        """Bytes sent to and received from all clients since the last call, as they travelled."""

    def last_heard(self) -> Mapping[str, float]:
        """When something of a client last arrived, in seconds since 1970, by client."""


class InProcessTransport:
    """A `Transport` to clients in this process, one after the other: for tests, and for many small clients.

    Args:
        handlers: by client.
    """

    def __init__(self, handlers: Mapping[str, Handler]):
        self._handlers = dict(handlers)
        self._bytes = [0, 0]

    def clients(self) -> list[str]:
        return list(self._handlers)

    def send(self, task: str, sent: Message, clients: Sequence[str], timeout: float) -> dict[str, Message]:
        replies = {client: self._deliver(task, sent, client) for client in clients}
        return {client: reply for client, reply in replies.items() if reply is not None}

    def send_in_background(self, task: str, sent: Message, clients: Sequence[str], arrived: Arrived) -> None:
        for client, reply in self.send(task, sent, clients, timeout=0).items():
            arrived(client, reply)

    def is_gone(self, client: str) -> bool:
        return False

    def take_bytes(self) -> tuple[int, int]:
        taken, self._bytes = tuple(self._bytes), [0, 0]
        return taken

    def last_heard(self) -> Mapping[str, float]:
        return {}

    def _deliver(self, task: str, sent: Message, client: str) -> Message | None:
        self._bytes[0] += _n_bytes(sent)
        reply = self._handlers[client](task, _copy(sent))
        if reply is not None:
            self._bytes[1] += _n_bytes(reply)
            reply = _copy(reply)
        return reply


def _copy(sent: Message) -> Message:
    """Neither side may change what the other holds."""
    return Message({name: values.copy() for name, values in sent.arrays.items()}, dict(sent.fields))


def _n_bytes(sent: Message) -> int:
    """Of the arrays alone."""
    return sum(values.nbytes for values in sent.arrays.values())
