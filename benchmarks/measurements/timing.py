"""Seconds of things that take turns, and how fast the device multiplies matrices."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

# Side of the matrices and number of products. A GPU takes a while to raise its clock: half a second on an H100.
PRODUCTS = {"cuda": (8192, 300), "cpu": (2048, 20)}


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """How long one call takes."""
    synchronise(device)
    started = time.perf_counter()
    function()
    synchronise(device)
    return time.perf_counter() - started


def take_turns(measured: Sequence[Callable[[], float]], repeats: int) -> list[float]:
    """Median of what each function measures, called A B C A B C …, so that what slows the machine slows all."""
    rounds = [[function() for function in measured] for _ in range(repeats)]
    return [statistics.median(values) for values in zip(*rounds, strict=True)]


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a product of two square matrices of random numbers, the best of several."""
    size, repeats = PRODUCTS[device.type]
    generator = torch.Generator(device).manual_seed(1)
    a, b = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    seconds = [seconds_of(lambda: a @ b, device) for _ in range(repeats)]
    return 2 * size**3 / min(seconds)
