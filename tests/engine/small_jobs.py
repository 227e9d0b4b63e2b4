"""Options with which a job of a method takes a second, for tests that are about all methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flaretune.config.client import ClientConfig
from flaretune.methods.message import Message
from flaretune.methods.registry import find_method

METHODS = ["fedbpt", "lpfl"]
DIM = 6  # searched dimensions
_SMALL = {
    "fedbpt": {"n_prompt_tokens": 3, "intrinsic_dim": DIM, "local_iter": 2},
    "lpfl": {"lora_rank": 2, "local_epochs": 1, "local_steps": 2, "unlabelled": 12},
}


def small_config(method: str, model: str | Path, **options: Any) -> ClientConfig:
    """A client's options: what `options` leave open is small.

    Args:
        method: one of `METHODS`.
        model: folder of a tiny model.
        options: of the client.
    """
    common = {"model_name": str(model), "k_shot": 8, "dtype": "float32", "eval_clients": "all"}
    return find_method(method).client_config(**{**common, **_SMALL[method], **options})


def learned(message: Message) -> dict[str, np.ndarray]:
    """The arrays of a reply that are made from a client's texts: a mean, or an adapter."""
    return {name: values for name, values in message.arrays.items() if name == "mean" or ".lora_" in name}
