"""A model held in bfloat16, computed with in float32 for a while: its rounding hides smaller faults than those."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from flaretune.models.label_head import LabelHead
from flaretune.models.split import is_split

MOST_ON_CPU = 2 * 10**9  # parameters of a model on a CPU that are held twice


@contextmanager
def in_float32(model: nn.Module, ids: np.ndarray) -> Iterator[bool]:
    """Within it, what the model holds in bfloat16 is float32, where there is memory for that; gives whether it is.

    Quantised weights have no such other format, and those that wait elsewhere are not among the parameters: a model
    with either stays as it is. On a CPU, tables that tokens are only looked up in, which can be most of a small model,
    have the rows of these ids alone and zeros elsewhere, which take no memory.

    Args:
        ids: of all tokens that will be put through it, int64.
    """
    if getattr(model, "is_quantized", False) or is_split(model):
        yield False
        return
    tensors = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}.values()
    held = [(tensor, tensor.data) for tensor in tensors if tensor.dtype == torch.bfloat16]
    if not held or not _has_room(held[0][0].device, sum(data.numel() for _, data in held)):
        yield False
        return
    tables, sizes = _tables(model), Counter()
    for tensor, data in held:
        sizes[data.device] += 0 if id(tensor) in tables else data.numel()
    # one block of memory goes back to the system afterwards; what many small ones had, a process keeps
    rooms = {device: torch.empty(size, device=device) for device, size in sizes.items()}
    try:
        for tensor, data in held:
            if id(tensor) in tables:
                tensor.data = _rows_alone(data, ids)
            else:
                room, rooms[data.device] = rooms[data.device].tensor_split([data.numel()])
                tensor.data = room.view(data.shape).copy_(data)
        yield True
    finally:
        for tensor, data in held:
            tensor.data = data


def _tables(model: nn.Module) -> set[int]:
    """Which parameters, by their id, are tables with a row for each token that nothing but a look-up uses."""
    head, words = model.get_output_embeddings(), model.get_input_embeddings()
    if not isinstance(head, LabelHead):  # any other may use the table, or hold a module that does
        return set()
    owners = [(module, id(tensor)) for module in model.modules() for tensor in module.parameters(recurse=False)]
    uses = Counter(key for _, key in owners)
    return {
        key
        for module, key in owners
        if isinstance(module, nn.Embedding)
        and uses[key] == 1
        and len(module.weight) == len(words.weight)
        and module.weight.device.type == "cpu"
    }


def _rows_alone(data: torch.Tensor, ids: np.ndarray) -> torch.Tensor:
    table = torch.from_numpy(np.zeros(data.shape, dtype=np.float32))  # of pages that are not there until written to
    rows = torch.from_numpy(ids)
    table[rows] = data[rows].float()
    return table


def _has_room(device: torch.device, n_numbers: int) -> bool:
    if device.type != "cuda":
        return n_numbers <= MOST_ON_CPU
    free, _total = torch.cuda.mem_get_info(device)
    return 4 * n_numbers <= free // 2
