"""The options of whoever runs a model: a client, or the model server."""

from __future__ import annotations

from typing import Literal

from flaretune.config.groups import MODEL
from flaretune.config.options import Options, option

NUMBER_FORMATS = ("bfloat16", "float32")
QUANTIZED = ("none", "int8", "int4", "nf4")
AUTO_MAP = "auto_map"  # of --device

# of the model server, and of FedBPT's and LP-FL's clients
CACHE_MB = option(
    1024,
    "MiB for what is computed once of a text: the part in front of a suffix prompt (FedBPT, causal models), the layers "
    "below --first_layer (LP-FL); 0: none",
    group=MODEL,
    at_least=0,
)
MODEL_SERVER_TIMEOUT = option(
    600, "seconds that a reply of the model server may take, waiting for its turn included", group=MODEL, at_least=1
)


class ModelConfig(Options):
    """Which model, and how it is run."""

    model_name: str = option(
        "roberta-large", "masked or causal language model: hub id or folder", group=MODEL, main=True
    )
    dtype: Literal["auto", "bfloat16", "float32"] = option(
        "auto",
        "number format to compute in; auto: bfloat16 where the device has instructions for it, else float32",
        group=MODEL,
    )
    quantize: Literal["none", "int8", "int4", "nf4"] = option(
        "none",
        "weights of linear layers in 8 or 4 bits, embeddings left as they are: int8 and int4 by torchao, nf4 by "
        'bitsandbytes (pip install "flaretune[quantize]"); the same at all clients',
        group=MODEL,
    )
    batch_size: int = option(
        0,
        "texts in a forward pass, each with all candidates, and in a pass of a training step; 0: 8 on a CPU, 16 where "
        "the text is cached, 64 on a GPU, and 4 of a training step of adapters on a CPU, else all",
        group=MODEL,
        at_least=0,
    )
