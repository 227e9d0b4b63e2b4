"""Token ids of several examples as one padded tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def pad_right(rows: Sequence[np.ndarray], pad_id: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both int64 of shape (B, longest), padded behind the text."""
    return _pad(rows, pad_id, device, left=False)


def pad_left(rows: Sequence[np.ndarray], pad_id: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both int64 of shape (B, longest), padded in front of the text."""
    return _pad(rows, pad_id, device, left=True)


def _pad(rows: Sequence[np.ndarray], pad_id: int, device, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(row) for row in rows)
    ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    attention = np.zeros((len(rows), longest), dtype=np.int64)
    for i, row in enumerate(rows):
        where = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[i, where] = row
        attention[i, where] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(attention).to(device)
