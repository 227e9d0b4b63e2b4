"""Batches of several clients' queries through one model side by side, on a CPU.

With all cores in one matrix product, each of a pass's hundreds of operations waits for its slowest thread, and a
thread waits for its core while another process has it. Passes side by side with a core each wait for nobody.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

import torch
from torch import nn

MOST = 4  # what Python does between the operations is done by one thread at a time
FEWEST_TEXTS = 4  # in a batch that is divided: below, reading the weights costs more than computing with them

Model = TypeVar("Model")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Lanes:
    """Threads for the passes of all black boxes of a process.

    Attributes:
        count: how many passes run at a time.
        executor: has as many threads.
    """

    count: int
    executor: ThreadPoolExecutor


def open_lanes(device: torch.device) -> Lanes:
    """Divide this process's cores among passes; on a GPU, one pass at a time.

    From then on operations have as many threads as a lane has cores, in the whole process.
    """
    cores = torch.get_num_threads()
    count = min(cores, MOST) if device.type == "cpu" else 1
    threads = max(cores // count, 1)
    torch.set_num_threads(threads)
    return Lanes(count, ThreadPoolExecutor(count, "lane", torch.set_num_threads, (threads,)))


class SideBySide(Generic[Model]):
    """A model for every lane: modules of its own, since hooks change them during a pass, and the same weights.

    Args:
        first: `models.masked.MaskedLM` or `models.causal.CausalLM`.
        model: the module behind it.
        lanes: on which passes run.
    """

    def __init__(self, first: Model, model: nn.Module, lanes: Lanes):
        self._lanes = lanes
        self._free: SimpleQueue[Model] = SimpleQueue()
        self._free.put(first)
        for _ in range(lanes.count - 1):
            self._free.put(with_same_weights(first, model))

    def passes(self, function: Callable[[Model, Item], Result], items: Iterable[Item]) -> list[Result]:
        """What a function gives for a model and each item, in the order of the items."""

        def one(item: Item) -> Result:
            model = self._free.get()
            try:
                return function(model, item)
            finally:
                self._free.put(model)

        return list(self._lanes.executor.map(one, items))

    @property
    def count(self) -> int:
        """How many passes run at a time."""
        return self._lanes.count


def with_same_weights(thing: Model, model: nn.Module) -> Model:
    """A copy of a model, or of what holds it, whose weights are the same tensors."""
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return copy.deepcopy(thing, shared)
