"""How much work a generation is: tokens, and the floating-point operations that a model's formulas ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from flaretune.data.encode import Encoded
from flaretune.tasks.spec import Kind


@dataclass(frozen=True)
class Work:
    """Tokens without padding, and operations on them (a multiplication and an addition are two)."""

    tokens: float
    flops: float

    def __add__(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.flops + other.flops)

    def __mul__(self, factor: float) -> Work:
        return Work(self.tokens * factor, self.flops * factor)


class Counting:
    """Operations of the layers of a masked or causal model; embeddings and head count as none.

    A token costs twice the entries of the layers' matrices, and 4·h·a for each of the h·a attention products with
    the tokens it sees (h heads of size a in each layer; query with key, and weight with value).
    """

    def __init__(self, model: nn.Module, kind: Kind):
        config = model.config
        self._kind = kind
        named = model.base_model.named_parameters()
        self.matrix_entries = sum(p.numel() for name, p in named if p.dim() == 2 and "embed" not in name)
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._attention = 4 * config.num_hidden_layers * config.num_attention_heads * head_size

    def generation(self, examples: Sequence[Encoded], n_prompt: int, n_candidates: int, cached: bool) -> Work:
        """Every candidate with every example; with `cached`, without the text in front of the prompt."""
        room = n_prompt if self._kind == "causal" else 0  # in mode `add`, placeholders are there already
        spans = ((e.insert if cached else 0, len(e.ids) + room) for e in examples)
        return self._of(spans) * n_candidates

    def text_in_front(self, examples: Sequence[Encoded]) -> Work:
        """What caching it costs."""
        return self._of((0, e.insert) for e in examples)

    def _of(self, spans: Iterable[tuple[int, int]]) -> Work:
        """Rows whose tokens from the first position up to the second are computed."""
        tokens = pairs = 0
        for first, end in spans:
            tokens += end - first
            causal_pairs = (end * (end + 1) - first * (first + 1)) // 2
            pairs += causal_pairs if self._kind == "causal" else (end - first) * end
        return Work(tokens, 2 * self.matrix_entries * tokens + self._attention * pairs)


def tokens_computed(model: nn.Module, function: Callable[[], object]) -> int:
    """Tokens, padding included, that go through a model's first layer while a function runs."""
    first = next(module for module in model.base_model.modules() if isinstance(module, nn.Linear))
    counted = 0

    def count(_module, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal counted
        counted += args[0].numel() // args[0].shape[-1]

    handle = first.register_forward_pre_hook(count)
    try:
        function()
    finally:
        handle.remove()
    return counted
