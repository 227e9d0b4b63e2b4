"""What two right computations of the same logits may differ by, and what the self-checks say of those that do."""

from __future__ import annotations

import torch

# As a part of how far logits of different texts are apart. With random models of eleven families and Gemma 3 270M it
# was 5e-6 at most in float32, 0.08 in bfloat16; what the models on the list of faults do wrong is mostly above 0.1.
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
