"""What two right computations of the same logits may differ by, and what is made of those that do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from flaretune.models.in_float32 import in_float32
from flaretune.models.load import Pretrained, reason
from flaretune.models.probe import token_ids

log = logging.getLogger(__name__)
Found = TypeVar("Found")

# As a part of how far logits of different texts are apart. Of models that are right (random ones of eleven families,
# Gemma 3 270M) it was below 1e-5 in float32 and 0.08 in bfloat16; of wrong ones, 0.05 at least (RWKV, padded in front).
ROUNDING = {"float32": 1e-3, "bfloat16": 0.3}
MOVED = 0.03  # of that: what differs by less is the same, where it should differ

BESIDE_OTHERS = "gives other logits for a text beside a longer one than for it alone"
NOT_CAUSAL = "is no causal language model as it is configured: tokens change the logits of those in front of them"
NOT_FINITE = "gives logits that are not finite"
SAME_FOR_ALL = "gives the same logits for different texts"
OWN_CODE = "gives other logits here than by its own code"
AS_PROMPT = "gives other logits for tokens whose embeddings are the prompt than for these tokens themselves"
DIFFERENCES = (BESIDE_OTHERS, NOT_CAUSAL, OWN_CODE, AS_PROMPT)  # that rounding can make

NOT_THE_MODELS = (torch.OutOfMemoryError, torch.AcceleratorError, MemoryError)  # errors that no model is to blame for


def same(some: torch.Tensor, others: torch.Tensor, apart: torch.Tensor, dtype: str, part: float = 1.0) -> bool:
    """Whether logits differ by rounding alone.

    Args:
        apart: by what logits of different texts differ from each other or from their mean, any shape.
        dtype: bfloat16 or float32, what was computed in.
        part: of what rounding may make.
    """

    def size(differences: torch.Tensor) -> torch.Tensor:
        return differences.float().square().mean().sqrt()

    return bool(size(some - others) <= part * ROUNDING[dtype] * size(apart))


def verdict(pretrained: Pretrained, compare: Callable[[], tuple[str | None, Found]]) -> tuple[str | None, Found | None]:
    """Compare in the number format that a model is held in, and one in bfloat16 in float32 too, which decides.

    Args:
        compare: gives what is wrong, to follow the name of the model's class, or None; and what else was found.

    Returns:
        What `compare` gives. Whatever it raises becomes what is wrong, but for errors that no model is to blame for.
    """

    def tried() -> tuple[str | None, Found | None]:
        try:
            return compare()
        except NOT_THE_MODELS:
            raise
        except Exception as error:  # whatever the model stumbles over
            log.debug("self-check", exc_info=True)
            return f"fails ({reason(error)})", None

    with torch.random.fork_rng(devices=[]):  # some models draw numbers
        fault, found = tried()
        if fault is not None and fault not in DIFFERENCES:
            return fault, found
        with in_float32(pretrained.model, token_ids(pretrained)) as changed:
            if not changed:
                return fault, found
            exact_fault, exact = tried()
    if fault is not None and exact_fault is None:
        log.warning(
            "--model_name %s: in bfloat16 %s %s, by more than usual; in float32 it does not. "
            "Accuracy may suffer; --dtype float32 is exact",
            *(pretrained.name, type(pretrained.model).__name__, fault),
        )
    return exact_fault, exact
