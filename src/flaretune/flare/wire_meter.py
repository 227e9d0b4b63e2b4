"""Counts the bytes of task and result messages as they leave and reach the server's job process.

NVFlare sends these messages as streams of chunks; the meter listens to the chunks on the server's own cell,
so what it adds up are the serialised messages that travelled, and not the polls in between.
"""

from __future__ import annotations

import threading
import time

from nvflare.fuel.f3.cellnet.core_cell import CoreCell
from nvflare.fuel.f3.cellnet.defs import CellChannel, MessageHeaderKey
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.message import Message
from nvflare.fuel.f3.streaming.download_service import OBJ_DOWNLOADER_CHANNEL, OBJ_DOWNLOADER_TOPIC
from nvflare.fuel.f3.streaming.stream_const import STREAM_CHANNEL, STREAM_DATA_TOPIC, StreamHeaderKey
from nvflare.private.defs import SpecialTaskName
from nvflare.private.fed.server.server_commands import ServerCommandNames

# Large arrays are fetched piece by piece; a piece is the reply to a request, from whichever side has the array.
_PIECE = f"{OBJ_DOWNLOADER_CHANNEL}:{OBJ_DOWNLOADER_TOPIC}"
_NO_TASK = (SpecialTaskName.TRY_AGAIN.encode(), SpecialTaskName.END_RUN.encode())


class WireMeter:
    """Bytes in each direction since the last `take`.

    Args:
        core_cell: of the server's process, where the job has no cell of its own.

    Attributes:
        last_heard: by site, when a message of its job last arrived, in seconds since 1970.
    """

    def __init__(self, job_id: str, core_cell: CoreCell):
        # Sites talk to the job's cell; in the simulator that is another one than the engine's.
        core_cell = CoreCell.ALL_CELLS.get(FQCN.join([FQCN.ROOT_SERVER, job_id]), core_cell)
        self._lock = threading.Lock()
        self._counted = {"down": 0, "up": 0}
        self._streams: dict[str, set] = {"down": set(), "up": set()}
        self.last_heard: dict[str, float] = {}
        # For all channels, next to NVFlare's own filters: one for this channel alone would hide those.
        core_cell.add_outgoing_request_filter("*", "*", self._outgoing)
        core_cell.add_incoming_filter("*", "*", self._incoming)

    def take(self) -> tuple[int, int]:
        """Bytes down to the clients and up from them; the next count starts from zero."""
        with self._lock:
            taken = self._counted
            self._counted = dict.fromkeys(taken, 0)
        return taken["down"], taken["up"]

    def _outgoing(self, message: Message) -> None:
        topic = message.get_header(StreamHeaderKey.TOPIC)
        is_task = topic == _topic(ServerCommandNames.GET_TASK) and not any(n in _bytes(message) for n in _NO_TASK)
        self._count("down", message, is_task or topic == _PIECE)

    def _incoming(self, message: Message) -> None:
        origin = str(message.get_header(MessageHeaderKey.ORIGIN, ""))
        self.last_heard[FQCN.split(origin)[0]] = time.time()
        is_result = (
            message.get_header(StreamHeaderKey.CHANNEL) == CellChannel.SERVER_COMMAND
            and message.get_header(StreamHeaderKey.TOPIC) == ServerCommandNames.SUBMIT_UPDATE
        )
        self._count("up", message, is_result or message.get_header(StreamHeaderKey.TOPIC) == _PIECE)

    def _count(self, direction: str, message: Message, starts_counted_stream: bool) -> None:
        if (
            message.get_header(MessageHeaderKey.CHANNEL) != STREAM_CHANNEL
            or message.get_header(MessageHeaderKey.TOPIC) != STREAM_DATA_TOPIC
        ):
            return
        stream = message.get_header(StreamHeaderKey.STREAM_ID)
        with self._lock:
            if starts_counted_stream:
                self._streams[direction].add(stream)
            if stream in self._streams[direction]:
                self._counted[direction] += len(_bytes(message))


def _topic(command: str) -> str:
    """How NVFlare names the stream of a reply to a command."""
    return f"{CellChannel.SERVER_COMMAND}:{command}"


def _bytes(message: Message) -> bytes:
    payload = message.payload
    if payload is None:
        return b""
    return b"".join(payload) if isinstance(payload, list) else bytes(payload)
