"""Keys and values of the text in front of the prompt, computed once and used by every candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer


@dataclass(frozen=True, eq=False)
class TextCache:
    """Of B examples, padded on the left to the same length T.

    Attributes:
        layers: keys and values of each layer of the model, each of shape (B, heads, T, size of a head).
        attention: 1 for text, 0 for padding, int64, shape (B, T).
    """

    layers: Sequence[tuple[torch.Tensor, torch.Tensor]]
    attention: torch.Tensor

    def nbytes(self) -> int:
        """Memory that the keys and values take, in bytes."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer)


def cache_for_rows(text: TextCache, n_prompts: int) -> Cache:
    """What one forward pass reads: keys and values by row: an example with each of λ prompts, then the next."""
    return Cache(layers=[_Layer(keys, values, n_prompts) for keys, values in text.layers])


class _Layer(DynamicLayer):
    """Of a cache for one forward pass: nothing is kept of what is new in it.

    Each tensor is made when its layer's turn comes and given up after it, so that all layers use the same memory.
    (With the parent class, which copies twice and keeps, copying took a quarter of a forward pass on a CPU.)
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, n_prompts: int):
        super().__init__()
        self._old_keys, self._old_values, self._n_prompts = keys, values, n_prompts
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def get_seq_length(self) -> int:
        return self._old_keys.shape[2]

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        return self._behind(self._old_keys, key_states), self._behind(self._old_values, value_states)

    def _behind(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Old keys or values, (B, heads, T, size), with each row's new ones, (λB, heads, n, size), behind them."""
        n_old = old.shape[2]
        n_rows, heads, n_new, size = new.shape
        both = new.new_empty(n_rows, heads, n_old + n_new, size)
        both.view(len(old), self._n_prompts, *both.shape[1:])[..., :n_old, :] = old[:, None]
        both[:, :, n_old:] = new
        return both
