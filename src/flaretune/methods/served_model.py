"""How a client finds the server that has its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flaretune.config.served_model import ServedModelConfig
from flaretune.errors import UserError
from flaretune.model_server.connection import PATIENCE, token_of_environment

if TYPE_CHECKING:
    from flaretune.model_server.vllm import VllmServer


def token_of(config: ServedModelConfig) -> str:
    """The model server's token, which is read at the client and is no part of the job; "" for none.

    Raises:
        UserError: what the reference names is not there.
    """
    if not config.model_server_token:
        return token_of_environment()
    from nvflare.fuel.utils.secret_utils import resolve_secret_refs

    try:
        return resolve_secret_refs(config.model_server_token)
    except ValueError as error:
        raise UserError(f"--model_server_token: {error}") from error


def patience_of(config: ServedModelConfig) -> dict[str, Any]:
    """How long a client waits for its model server."""
    return {
        "patience": min(PATIENCE, config.model_server_timeout),
        "answer_seconds": config.model_server_timeout,
    }


def vllm_server(config: ServedModelConfig, *, by_name: bool = False) -> VllmServer:
    """The vLLM server that a client is told; see `model_server.vllm.VllmServer`.

    Raises:
        UserError: it does not reply, or has another model.
    """
    from flaretune.model_server.vllm import VllmServer

    return VllmServer(config.model_server, token_of(config), config.model_name, **patience_of(config), by_name=by_name)
