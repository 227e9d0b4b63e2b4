"""A loaded model several times, of the same weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TypeVar

from torch import nn

from flaretune.models.load import Pretrained

Thing = TypeVar("Thing")


def share_weights(pretrained: Pretrained) -> Pretrained:
    """Another model of the same weights, in the same memory, whose head can be replaced without touching this one's."""
    return replace(pretrained, model=with_same_weights(pretrained.model, pretrained.model))


def with_same_weights(thing: Thing, model: nn.Module) -> Thing:
    """A copy of a model, or of what holds it, whose weights are the same tensors."""
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    for module in model.modules():  # weights that wait in memory or on disk
        waiting = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
        shared[id(waiting)] = waiting
    return copy.deepcopy(thing, shared)
