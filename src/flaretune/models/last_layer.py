"""The last layer's feed-forward part, a transformer's larger one, computed at the answer positions alone.

Behind the last layer nothing mixes positions any more, so that what it gives at other positions is never read. Its
attention is left as it is, since every position has keys and values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter

import torch
from torch import nn

# Layers of a base model, and the first module in a layer that works on each position by itself.
PLACES = (
    ("encoder.layer", "intermediate"),  # BERT, RoBERTa, XLM-RoBERTa, ELECTRA, …
    ("transformer.layer", "ffn"),  # DistilBERT
    ("layers", "mlp"),  # LLaMA, Gemma, Qwen, Mistral, Phi, …
    ("h", "mlp"),  # GPT-2
)


def last_feed_forward(model: nn.Module) -> nn.Module | None:
    """Of a model of the transformers library; None where it has none under a name that is known here."""
    if getattr(getattr(model, "config", None), "model_type", None) == "falcon":
        return None  # it adds its attention's output, which is of all positions, in place
    for layers, part in PLACES:
        try:
            return attrgetter(part)(attrgetter(layers)(model.base_model)[-1])
        except (AttributeError, IndexError, TypeError):
            continue
    return None


@contextmanager
def only_at(module: nn.Module | None, positions: torch.Tensor) -> Iterator[None]:
    """Within it, the module gets one position of each row, and what it gives is added to all positions of the row.

    So the sums are right at that position, and of the right shape everywhere.

    Args:
        module: what `last_feed_forward` gave.
        positions: one for each of R rows, int64, shape (R,).
    """
    if module is None:
        yield
        return

    def pick(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        hidden, *rest = args  # (R, L, D)
        if hidden.dim() != 3 or len(hidden) != len(positions):
            return None  # rows packed into one by the model: all positions are computed
        rows = torch.arange(len(hidden), device=hidden.device)
        return hidden[rows, positions.to(hidden.device)][:, None], *rest

    with module.register_forward_pre_hook(pick):
        yield
