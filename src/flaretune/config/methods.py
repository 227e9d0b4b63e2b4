"""The configs of every method there is."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

from flaretune.config.client import ClientConfig
from flaretune.config.server import ServerConfig

METHODS = Path(__file__).parents[1] / "methods"


@cache
def method_configs() -> dict[str, tuple[type[ClientConfig], type[ServerConfig]]]:
    """What client and server of each method are told, by the name of its folder, which holds a `config.py`."""
    found = {}
    for file in sorted(METHODS.glob("*/config.py")):
        kinds = vars(import_module(f"flaretune.methods.{file.parent.name}.config")).values()
        client, server = (
            next(k for k in kinds if isinstance(k, type) and issubclass(k, base) and k is not base)
            for base in (ClientConfig, ServerConfig)
        )
        found[file.parent.name] = client, server
    return found
