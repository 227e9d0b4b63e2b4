"""Token ids of several examples as one padded tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence


def pad(
    rows: Sequence[np.ndarray], pad_id: int, device, side: Literal["left", "right"] = "right"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both int64 of shape (B, longest), padded on this side of the text."""
    ids = [torch.tensor(row, dtype=torch.int64) for row in rows]
    attention = [torch.ones_like(row) for row in ids]
    return tuple(
        pad_sequence(tensors, batch_first=True, padding_value=padding, padding_side=side).to(device)
        for tensors, padding in ((ids, pad_id), (attention, 0))
    )
