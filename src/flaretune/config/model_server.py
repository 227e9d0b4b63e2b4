"""The options of the language-model service."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flaretune.config.options import check_fields, option, same_option
from flaretune.errors import UserError
from flaretune.methods.fedbpt.config import FedBPTConfig

MODEL, SERVICE = "model", "service"
GROUPS = {MODEL: "The language model that answers.", SERVICE: "Where it is found, and what it refuses."}
TOKEN_VARIABLE = "FLARETUNE_LM_TOKEN"  # the environment variable that holds the token, on both sides
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class ServiceConfig:
    """What `python -m flaretune serve` is told."""

    model_name: str = same_option(FedBPTConfig, "model_name", group=MODEL)
    dtype: str = same_option(FedBPTConfig, "dtype", group=MODEL)
    device: str = option("auto", "auto (every GPU, or the CPU), cpu, cuda, or a list: cuda:0,cuda:2", group=MODEL)
    workers: int = option(1, "copies of the model on each device", group=MODEL, at_least=1)
    batch_size: int = same_option(FedBPTConfig, "batch_size", group=MODEL)
    cache_mb: int = same_option(FedBPTConfig, "cache_mb", group=MODEL)
    merge: int = option(
        1,
        "how many clients' questions may share a forward pass; 1: none, and the same numbers as with --lm local",
        group=MODEL,
        at_least=1,
    )

    host: str = option(
        LOOPBACK,
        f"{LOOPBACK}: this machine only; 0.0.0.0 or ::, every network: texts then travel in the clear without "
        "--ssl_certfile",
        group=SERVICE,
        choices=(LOOPBACK, "0.0.0.0", "::"),
    )
    port: int = option(8765, "where it listens", group=SERVICE, at_least=1024, at_most=65535)
    ssl_certfile: str = option("", "certificate, for https", group=SERVICE)
    ssl_keyfile: str = option("", "its key", group=SERVICE)
    max_mb: int = option(64, "the largest message that is read, in MiB", group=SERVICE, at_least=1)
    timeout: int = option(
        600, "seconds after which a question that still waits for its turn is refused", group=SERVICE, at_least=1
    )
    with_parent: int = option(0, "1: end when the process that started it ends", group=SERVICE, choices=(0, 1))

    def __post_init__(self):
        check_fields(self)
        if not re.fullmatch(r"auto|cpu|cuda|cuda:\d+(,cuda:\d+)*", self.device, re.ASCII):
            raise UserError(f"--device {self.device!r}: must be auto, cpu, cuda, or a list like cuda:0,cuda:2")
        if bool(self.ssl_certfile) != bool(self.ssl_keyfile):
            raise UserError("--ssl_certfile and --ssl_keyfile belong together: give both or neither")
