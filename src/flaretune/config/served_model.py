"""The options of clients whose model may be in a server, and what does not go together with one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from flaretune.config.client import ClientConfig
from flaretune.config.groups import MODEL
from flaretune.config.model import MODEL_SERVER_TIMEOUT
from flaretune.config.options import option

LOCAL, VLLM = "local", "vllm+"  # of --model_server: no server, and what a vLLM server's address begins with


class ServedModelConfig(ClientConfig):
    """What a client is told of where its model is."""

    client_options: ClassVar[tuple[str, ...]] = (
        *ClientConfig.client_options,
        "model_server",
        "model_server_timeout",
        "model_server_token",
    )

    model_server: str = option(
        LOCAL,
        "local: this client loads the model itself; or the address of a server that has it loaded: "
        "vllm+http://127.0.0.1:8000 of vLLM, or, for FedBPT, http://127.0.0.1:8765 of python -m flaretune serve",
        group=MODEL,
    )
    model_server_timeout: int = MODEL_SERVER_TIMEOUT
    model_server_token: str = option(
        "",
        "for a client's own file: the model server's token as a secret reference of NVFlare; default: from the "
        "environment, ${secret:FLARETUNE_MODEL_SERVER_TOKEN}",
        group=MODEL,
    )

    @property
    def uses_vllm(self) -> bool:
        """Whether the model is in a vLLM server."""
        return self.model_server.startswith(VLLM)

    def clashes(self) -> Iterator[str]:
        yield from super().clashes()
        is_local = self.model_server == LOCAL
        if not is_local and not re.fullmatch(r"(vllm\+)?https?://[^\s/]+/?", self.model_server):
            yield (
                f"--model_server {self.model_server}: must be local, or the address of a model server such as "
                "http://127.0.0.1:8765, or vllm+http://127.0.0.1:8000 of vLLM"
            )
        if self.model_server_token and not re.fullmatch(
            r"\$\{secret:(file:[^{}\s]+|[A-Za-z_]\w*)\}", self.model_server_token, re.ASCII
        ):
            yield (  # without the value, which may be the token
                "--model_server_token: must be a secret reference such as ${secret:file:/run/secrets/lm} or "
                "${secret:MY_TOKEN}, in the client's local/flaretune.toml, and never the token itself, which whoever "
                "reads the job would see"
            )
        if self.uses_vllm and self.quantize != "none":
            yield (
                f"--quantize {self.quantize}: the weights are the vLLM server's, which has options of its own for that "
                "(--quantization); leave it out"
            )
        if not is_local and (self.device != "auto" or self.batch_size):
            where = "the vLLM server" if self.uses_vllm else "`python -m flaretune serve`"
            yield (
                f"--device and --batch_size are the model server's where --model_server names one: give them to {where}"
            )
