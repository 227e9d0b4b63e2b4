"""NVFlare's way between the server and the clients, as a `Transport`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.model_controller import ModelController

from flaretune.engine.transport import Aborted, Arrived
from flaretune.flare.fixes import communicator
from flaretune.flare.wire_meter import WireMeter
from flaretune.methods.message import Message

FIELDS = "flaretune"  # where a message's fields are, in FLModel.meta


def to_model(message: Message) -> FLModel:
    """A message as NVFlare sends it."""
    return FLModel(params=message.arrays, meta={FIELDS: message.fields})


def from_model(model: FLModel) -> Message:
    """A message that NVFlare has brought, whose readers say what is wrong with it."""
    meta = model.meta if isinstance(model.meta, Mapping) else {}
    params = model.params if isinstance(model.params, Mapping) else {}
    return Message(dict(params), meta.get(FIELDS))


class NVFlareTransport:
    """A `Transport` over a controller's communicator."""

    def __init__(self, controller: ModelController):
        self._controller = controller
        self._meter = WireMeter(controller.fl_ctx.get_job_id(), controller.engine.get_cell().core_cell)
        communicator.correct(controller.communicator)

    def clients(self) -> list[str]:
        return [client.name for client in self._controller.engine.get_clients()]

    def send(self, task: str, sent: Message, clients: Sequence[str], timeout: float) -> dict[str, Message]:
        results = self._controller.broadcast_model(
            data=to_model(sent), task_name=task, targets=list(clients), timeout=timeout
        )
        if self._controller.abort_signal.triggered:
            raise Aborted
        return {result.meta.get("client_name", "an unknown client"): from_model(result) for result in results}

    def send_in_background(self, task: str, sent: Message, clients: Sequence[str], arrived: Arrived) -> None:
        self._controller.broadcast_model(
            data=to_model(sent),
            task_name=task,
            targets=list(clients),
            timeout=0,
            blocking=False,
            callback=lambda model: arrived(model.meta.get("client_name", "an unknown client"), from_model(model)),
        )

    def is_gone(self, client: str) -> bool:
        """Whether NVFlare takes a client for dead, for which it would wait half a minute in every task."""
        disconnected = getattr(self._controller.communicator, "get_client_disconnect_time", None)
        return disconnected is not None and bool(disconnected(client))

    def take_bytes(self) -> tuple[int, int]:
        return self._meter.take()

    def last_heard(self) -> Mapping[str, float]:
        return self._meter.last_heard
