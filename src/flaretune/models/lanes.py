"""Batches of several clients' queries through one model side by side, on a CPU; and copies that share weights.

With all cores in one matrix product, each of a pass's hundreds of operations waits for its slowest thread, and a
thread waits for its core while another process has it. Passes side by side with a core each wait for nobody.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Generic, TypeVar

import torch
from torch import nn

from flaretune.models.load import Pretrained

MOST = 4  # what Python does between the operations is done by one thread at a time
FEWEST_TEXTS = 4  # in a batch that is divided: below, reading the weights costs more than computing with them

Model = TypeVar("Model")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Lanes:
    """Threads for the passes of all black boxes of a process."""

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


@dataclass(frozen=True)
class SideBySide(Generic[Model]):
    """A model for every lane, see `side_by_side`.

    Attributes:
        which: of the models that share modules.
        free: what no pass uses now.
    """

    lanes: Lanes
    which: int
    free: SimpleQueue[Sequence[Model]]

    def passes(self, function: Callable[[Model, Item], Result], items: Iterable[Item]) -> list[Result]:
        """What a function gives for a model and each item, in the order of the items."""

        def one(item: Item) -> Result:
            models = self.free.get()
            try:
                return function(models[self.which], item)
            finally:
                self.free.put(models)

        return list(self.lanes.executor.map(one, items))


def side_by_side(models: Sequence[Model], module: nn.Module, lanes: Lanes) -> list[SideBySide[Model]]:
    """Models for every lane: modules of its own, since hooks change them during a pass, and the same weights.

    Args:
        models: `models.masked.MaskedLM` or `models.causal.CausalLM`, all of the same module, so that a lane has a pass
            of one of them at a time.
    """
    free: SimpleQueue[Sequence[Model]] = SimpleQueue()
    free.put(models)
    for _ in range(lanes.count - 1):
        free.put(with_same_weights(models, module))
    return [SideBySide(lanes, which, free) for which in range(len(models))]


def share_weights(pretrained: Pretrained) -> Pretrained:
    """Another model of the same weights, in the same memory, whose head can be replaced without touching this one's."""
    return replace(pretrained, model=with_same_weights(pretrained.model, pretrained.model))


def with_same_weights(thing: Model, model: nn.Module) -> Model:
    """A copy of a model, or of what holds it, whose weights are the same tensors."""
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    for module in model.modules():  # weights that wait in memory or on disk
        waiting = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
        shared[id(waiting)] = waiting
    return copy.deepcopy(thing, shared)
