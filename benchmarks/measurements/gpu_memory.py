"""Memory on the device of one model that clients share, against a copy for each client."""

from __future__ import annotations

import copy
import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from flaretune.models.black_box import default_batch_size
from flaretune.seeding import derive_seed
from measurements.examples import random_examples
from measurements.random_model import black_box_of, narrowed, random_model, random_prompt
from measurements.shapes import Shape

SEED, INTRINSIC_DIM, N_CANDIDATES, N_EXAMPLES, CACHE_MB = 1, 500, 5, 32, 1024


def memory_by_clients(
    shape: Shape, device: torch.device, dtype: torch.dtype, clients: Sequence[int] = (1, 4, 10)
) -> dict[str, Any]:
    """Load a model in a number format once for all clients, then once for each, and read what is held.

    Every client registers 32 examples and asks with five candidates; one process holds all of them.

    Returns:
        MiB. ``shared`` and ``copies``: what is held by the number of clients (as text), None where that many copies
        do not fit. ``asking``: the most that was held while the first client asked. ``context``: what CUDA takes
        besides, in each process; None without CUDA. And ``measured_by``, in words.
    """
    template = narrowed(random_model(shape, device, SEED).to(dtype), shape.kind).cpu()
    shared, asking = _held(template, shape, device, clients, own_copies=False)
    copies, _ = _held(template, shape, device, clients, own_copies=True)
    return {
        "shared": shared,
        "copies": copies,
        "asking": asking,
        "context": _context(device),
        "measured_by": "torch.cuda.memory_allocated" if device.type == "cuda" else "resident set of the process",
    }


def _held(
    template: nn.Module, shape: Shape, device: torch.device, clients: Sequence[int], own_copies: bool
) -> tuple[dict[str, float | None], float]:
    """MiB held with each number of clients, and the most while the first asked."""
    _free_unused(device)
    start = _bytes(device)
    found: dict[str, float | None] = {str(number): None for number in clients}
    points = np.random.default_rng(derive_seed(SEED, "bench", "points")).standard_normal((N_CANDIDATES, INTRINSIC_DIM))
    kept: list[Any] = []
    box, asking = None, 0.0
    for number in range(1, max(clients) + 1):
        if box is None or own_copies:
            if not _fits(template, device):
                break
            model = copy.deepcopy(template).to(device)
            prompt = random_prompt(model, shape.n_prompt_tokens, INTRINSIC_DIM, SEED)
            box = black_box_of(model, shape.kind, prompt, default_batch_size(device), CACHE_MB)
        seed = derive_seed(SEED, "bench", "client", number)
        vocabulary = template.config.vocab_size
        texts = box.register(random_examples(shape.kind, vocabulary, N_EXAMPLES, shape.n_prompt_tokens, seed))
        box.label_logits(points, texts)
        if number == 1:
            asking = _mib(_most_bytes(device) - start)
        kept.append((box, texts))
        if str(number) in found:
            found[str(number)] = _mib(_bytes(device) - start)
    return found, asking


def _fits(model: nn.Module, device: torch.device) -> bool:
    """Whether there is memory for another copy and as much again for asking."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return free > 2 * sum(tensor.nbytes for tensor in model.parameters())


def _free_unused(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _most_bytes(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _bytes(device)


def _context(device: torch.device) -> float | None:
    """Of this process, if it is the only one on the device."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return _mib(total - free - torch.cuda.memory_reserved(device))


def _mib(n_bytes: float) -> float:
    return round(n_bytes / 2**20, 1)
