"""A model held in bfloat16, computed with in float32 for a while: its rounding hides smaller faults than those."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from flaretune.models.split import is_split

MOST_ON_CPU = 2 * 10**9  # parameters of a model on a CPU that are held twice


@contextmanager
def in_float32(model: nn.Module) -> Iterator[bool]:
    """Within it, what the model holds in bfloat16 is float32, where there is memory for that; gives whether it is.

    Quantised weights have no such other format, and those that wait elsewhere are not among the parameters: a model
    with either stays as it is.
    """
    if getattr(model, "is_quantized", False) or is_split(model):
        yield False
        return
    tensors = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}.values()
    held = [(tensor, tensor.data) for tensor in tensors if tensor.dtype == torch.bfloat16]
    if not held or not _has_room(held[0][0].device, sum(data.numel() for _, data in held)):
        yield False
        return
    try:
        for tensor, data in held:
            tensor.data = data.float()
        yield True
    finally:
        for tensor, data in held:
            tensor.data = data


def _has_room(device: torch.device, n_numbers: int) -> bool:
    if device.type != "cuda":
        return n_numbers <= MOST_ON_CPU
    free, _total = torch.cuda.mem_get_info(device)
    return 4 * n_numbers <= free // 2
