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


def cache_for_rows(texts: Sequence[TextCache], n_prompts: Sequence[int]) -> Cache:
    """What one forward pass reads: the keys and values of a text for each prompt that it is asked with.

    Args:
        texts: one or more; shorter ones are padded on the left.
        n_prompts: λ of each; its rows are its first example with every prompt, then its second, ….
    """
    layers = zip(*(text.layers for text in texts), strict=True)
    return Cache(layers=[_Layer(*zip(*layer, strict=True), n_prompts) for layer in layers])


class _Layer(DynamicLayer):
    """Of a cache for one forward pass: nothing is kept of what is new in it.

    Each tensor is made when its layer's turn comes and given up after it, so that all layers use the same memory.
    (With the parent class, which copies twice and keeps, copying took a quarter of a forward pass on a CPU.)
    """

    def __init__(self, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor], n_prompts: Sequence[int]):
        super().__init__()
        self._old_keys, self._old_values, self._n_prompts = keys, values, n_prompts
        self.dtype, self.device = keys[0].dtype, keys[0].device
        self.is_initialized = True

    def get_seq_length(self) -> int:
        return max(tensor.shape[2] for tensor in self._old_keys)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        return self._behind(self._old_keys, key_states), self._behind(self._old_values, value_states)

    def _behind(self, old: Sequence[torch.Tensor], new: torch.Tensor) -> torch.Tensor:
        """Old keys or values, (B, heads, T, size) of each text, with a row's new ones, (R, heads, n, size), behind."""
        longest = self.get_seq_length()
        n_rows, heads, n_new, size = new.shape
        both = new.new_empty(n_rows, heads, longest + n_new, size)
        both[:, :, longest:] = new
        parts = both.split([len(tensor) * count for tensor, count in zip(old, self._n_prompts, strict=True)])
        for part, tensor, count in zip(parts, old, self._n_prompts, strict=True):
            by_example = part.view(len(tensor), count, heads, longest + n_new, size)
            padding = longest - tensor.shape[2]
            by_example[..., :padding, :] = 0
            by_example[..., padding:longest, :] = tensor[:, None]
        return both
