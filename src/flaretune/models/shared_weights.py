"""A loaded model twice, of the same weights."""

from __future__ import annotations

import copy
from dataclasses import replace

from flaretune.models.load import Pretrained


def share_weights(pretrained: Pretrained) -> Pretrained:
    """Another model of the same weights, in the same memory, whose head can be replaced without touching this one's."""
    weights = [*pretrained.model.parameters(), *pretrained.model.buffers()]
    shared = {id(tensor): tensor for tensor in weights}
    for module in pretrained.model.modules():  # weights that wait in memory or on disk
        waiting = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
        shared[id(waiting)] = waiting
    return replace(pretrained, model=copy.deepcopy(pretrained.model, shared))
