"""The options of the model server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from flaretune.config.groups import MODEL, SERVICE
from flaretune.config.model import CACHE_MB, MODEL_SERVER_TIMEOUT, ModelConfig
from flaretune.config.options import option

PARENT_VARIABLE = "FLARETUNE_PARENT"  # id of the process that a server ends with, if that has started it
LOOPBACK = "127.0.0.1"


class ServiceConfig(ModelConfig):
    """What `python -m flaretune serve` is told."""

    device: str = option("auto", "auto (every GPU, or the CPU), cpu, cuda, or a list: cuda:0,cuda:2", group=MODEL)
    cache_mb: int = CACHE_MB
    model_server_timeout: int = MODEL_SERVER_TIMEOUT

    host: Literal["127.0.0.1", "0.0.0.0", "::"] = option(
        LOOPBACK,
        f"{LOOPBACK}: this machine only; 0.0.0.0 or ::, every network: texts then travel in the clear without "
        "--ssl_certfile",
        group=SERVICE,
    )
    port: int = option(8765, "where it listens", group=SERVICE, at_least=1024, at_most=65535)
    ssl_certfile: str = option("", "certificate and its key in one PEM file, for https", group=SERVICE)
    max_mb: int = option(64, "the largest message that is read, in MiB", group=SERVICE, at_least=1)

    def clashes(self) -> Iterator[str]:
        if not re.fullmatch(r"auto|cpu|cuda|cuda:\d+(,cuda:\d+)*", self.device, re.ASCII):
            yield f"--device {self.device!r}: must be auto, cpu, cuda, or a list like cuda:0,cuda:2"
