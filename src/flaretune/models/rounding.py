"""What two right computations of the same logits may differ by, and what the self-checks say of those that do."""

from __future__ import annotations

import torch

# As a part of how far logits of different texts are apart. Of models that are right (random ones of eleven families,
# Gemma 3 270M) it was below 1e-5 in float32 and 0.08 in bfloat16; of wrong ones, 0.05 at least (RWKV, padded in front).
ROUNDING = {"float32": 1e-3, "bfloat16": 0.3}
MOVED = 0.03  # of that: what differs by less is the same, where it should differ

BESIDE_OTHERS = "gives other logits for a text beside a longer one than for it alone"
NOT_CAUSAL = "is no causal language model as it is configured: tokens change the logits of those in front of them"
NOT_FINITE = "gives logits that are not finite"
SAME_FOR_ALL = "gives the same logits for different texts"

NOT_THE_MODELS = (torch.OutOfMemoryError, torch.AcceleratorError, MemoryError)  # errors that no model is to blame for


def same(some: torch.Tensor, others: torch.Tensor, apart: torch.Tensor, dtype: str, part: float = 1.0) -> bool:
    """Whether logits differ by rounding alone.

    Args:
        some, others: logits of the same shape.
        apart: by what logits of different texts differ from each other or from their mean, any shape.
        dtype: bfloat16 or float32, what was computed in.
        part: of what rounding may make.
    """

    def size(differences: torch.Tensor) -> torch.Tensor:
        return differences.float().square().mean().sqrt()

    return bool(size(some - others) <= part * ROUNDING[dtype] * size(apart))
