"""A loaded model twice, of the same weights."""

from __future__ import annotations

import copy
from dataclasses import replace

from flaretune.models.load import Pretrained


def share_weights(pretrained: Pretrained) -> Pretrained:
    """Another model of the same weights, in the same memory, whose head can be replaced without touching this one's."""
    weights = [*pretrained.model.parameters(), *pretrained.model.buffers()]
    shared = {id(tensor): tensor for tensor in weights}
    return replace(pretrained, model=copy.deepcopy(pretrained.model, shared))
