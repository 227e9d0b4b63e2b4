"""The word embeddings of a checkpoint, read without the rest of its weights."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.utils import cached_file

from flaretune.errors import UserError
from flaretune.models.architecture import IN_MULTIMODAL
from flaretune.models.load import Pretrained, reason

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


class WordEmbeddings(nn.Module):
    """A model's own embedding module, with its scaling (Gemma), over a table that is read from the checkpoint.

    Rows are made numbers of another format only when they are looked up, so that the table stays in memory as it lies
    in the checkpoint.

    Args:
        module: of the model, its parameters on the meta device.
        table: (vocabulary, D).

    Attributes:
        dtype: what rows are computed in.
    """

    def __init__(self, module: nn.Embedding, table: torch.Tensor):
        super().__init__()
        self.weight = nn.Parameter(table, requires_grad=False)
        self.dtype = torch.float32
        module.padding_idx = None  # of the whole table
        self._module = [module]  # no part of this one

    def forward(self, ids: torch.Tensor) -> torch.Tensor:  # (…) → (…, D)
        (module,) = self._module
        rows = self.weight[ids.reshape(-1)].to(self.dtype)
        module.weight = nn.Parameter(rows, requires_grad=False)
        return module(torch.arange(len(rows)).view(ids.shape))


def read_word_embeddings(outline: Pretrained) -> WordEmbeddings:
    """Fill in the word embeddings of a model without weights, which stays without all others.

    Args:
        outline: what `load.load_outline` gave.

    Raises:
        UserError: the checkpoint has no such table, or another one than its configuration says.
    """
    model = outline.model
    with init_empty_weights(include_buffers=False):  # a scaling is a buffer
        whole = type(model)(model.config)
    module = whole.get_input_embeddings()
    if not isinstance(module, nn.Embedding):
        raise UserError(
            f"--model_name {outline.name}: its word embeddings are a {type(module).__name__}, not a table that could "
            "be read alone; use --model_server local, or another model"
        )
    whole.tie_weights()
    names = [name for name, held in whole.named_parameters(remove_duplicate=False) if held is module.weight]
    table = _read_table(outline.name, names, whole.base_model_prefix)
    if tuple(table.shape) != tuple(module.weight.shape) or not table.is_floating_point():
        raise UserError(
            f"--model_name {outline.name}: the checkpoint's word embeddings are {table.dtype} of shape "
            f"{tuple(table.shape)}, and its config.json says {tuple(module.weight.shape)}; use a checkpoint whose word "
            "embeddings are not quantised, with the config.json that belongs to it"
        )
    embeddings = WordEmbeddings(module, table)
    model.set_input_embeddings(embeddings)
    return embeddings


def _read_table(model_name: str, names: list[str], prefix: str) -> torch.Tensor:
    source = os.path.expanduser(model_name)
    try:
        files = dict(_files(source))
        found = [key for name in names for key in files if _as_loaded(key, prefix, names) == name]
        if found:
            with safe_open(cached_file(source, files[found[0]]), framework="pt") as opened:
                return opened.get_tensor(found[0])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"--model_name {model_name}: its word embeddings could not be read ({reason(error)}); make sure that "
            f"{WEIGHTS} is there and whole"
        ) from error
    raise UserError(
        f"--model_name {model_name}: its checkpoint has no tensor {names[0]}; use --model_server local, which loads "
        "the whole model, or another checkpoint"
    )


def _files(source: str) -> Iterator[tuple[str, str]]:
    """Tensor → the file it lies in."""
    index = cached_file(source, INDEX, _raise_exceptions_for_missing_entries=False)
    if index is not None:
        with open(index, encoding="utf-8") as file:
            yield from json.load(file)["weight_map"].items()
        return
    with safe_open(cached_file(source, WEIGHTS), framework="pt") as opened:
        yield from ((key, WEIGHTS) for key in opened.keys())  # noqa: SIM118 (no mapping)


def _as_loaded(key: str, prefix: str, names: list[str]) -> str:
    """The name that a checkpoint's tensor has in the model, if it is one of these."""
    inside = key
    for pattern, replacement in IN_MULTIMODAL.items():
        inside = re.sub(pattern, replacement, inside)
    return next((name for name in (key, f"{prefix}.{key}", inside) if name in names), key)
