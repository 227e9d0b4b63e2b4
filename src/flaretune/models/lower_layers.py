"""The layers below the first that is adapted: what they make of a text never changes, and is computed once.

A frozen layer gives the same hidden states in every round, epoch and step, as long as nothing under it is trained. They
are kept when a text first goes through the whole model; from then on it enters at the first adapted layer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from flaretune.data.encode import Encoded

log = logging.getLogger(__name__)


def layers_of(model: nn.Module) -> tuple[str, nn.ModuleList] | None:
    """The stack of layers that text goes through, and its name in the model; None where there is not exactly one."""
    wanted = getattr(model.config, "num_hidden_layers", None)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == wanted and len({id(layer) for layer in module}) > 1
    ]
    return found[0] if len(found) == 1 else None


class LowerLayers:
    """Hidden states of texts in front of a layer, kept in memory.

    Args:
        layers: of the model, in the order in which text goes through them.
        first: index of the layer whose input is kept, at least 1.
        cache_mb: memory for them, in MiB; texts beyond it are computed every time.
    """

    def __init__(self, layers: nn.ModuleList, first: int, cache_mb: float):
        self._layers, self._first = layers, first
        self.keep_states = cache_mb > 0
        self._limit, self._used, self._is_full = cache_mb * 2**20, 0, False
        self._states: dict[bytes, torch.Tensor] = {}  # token ids -> (L, D)
        self._outputs: dict[int, int] = {}  # layer -> length of the tuple that it gives; 0 where it gives a tensor

    def train_others(self, mode: bool) -> None:
        """Put the layers above into training mode, or out of it; what is kept of the lower ones knows no dropout."""
        for layer in self._layers[self._first :]:
            layer.train(mode)

    def forget(self) -> None:
        """Give up all states."""
        self._states.clear()
        self._used, self._is_full = 0, False

    def know(self, examples: Sequence[Encoded]) -> bool:
        """Whether the states of all of these texts are kept."""
        return all(_key(example) in self._states for example in examples)

    @contextmanager
    def kept(self, examples: Sequence[Encoded]) -> Iterator[None]:
        """Within it, a forward pass of these texts, padded on the right, leaves their states here."""

        def keep(_layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = _hidden(args, kwargs)  # (B, L, D)
            if hidden.shape[:1] != (len(examples),) or hidden.dim() != 3:
                return  # rows packed into one by the model
            for example, states in zip(examples, hidden.detach(), strict=True):
                self._keep(_key(example), states[: len(example.ids)])

        def note(index: int) -> Callable[..., None]:
            def hook(_layer: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
                self._outputs[index] = len(output) if isinstance(output, tuple) else 0

            return hook

        with ExitStack() as hooks:
            hooks.enter_context(self._layers[self._first].register_forward_pre_hook(keep, with_kwargs=True))
            for index, layer in enumerate(self._layers[: self._first]):
                hooks.enter_context(layer.register_forward_hook(note(index)))
            yield

    @contextmanager
    def left_out(self, examples: Sequence[Encoded]) -> Iterator[None]:
        """Within it, the lower layers give what is kept of these texts, all of which are known."""
        rows = [self._states[_key(example)] for example in examples]
        hidden = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (B, L, D); what is behind a text is never read

        def given(index: int) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                output = hidden if index == self._first - 1 else _hidden(args, kwargs)
                return (output, *[None] * (self._outputs[index] - 1)) if self._outputs[index] else output

            return forward

        lower = self._layers[: self._first]
        own = [vars(layer).get("forward") for layer in lower]  # else its class's is used
        for index, layer in enumerate(lower):
            layer.forward = given(index)
        try:
            yield
        finally:
            for layer, forward in zip(lower, own, strict=True):
                if forward is None:
                    del layer.forward
                else:
                    layer.forward = forward

    def _keep(self, key: bytes, states: torch.Tensor) -> None:
        if key in self._states or self._is_full:
            return
        self._is_full = self._used + states.nbytes > self._limit
        if self._is_full:
            log.warning(
                "--cache_mb is full with the hidden states of %d texts: batches with others go through all layers",
                len(self._states),
            )
            return
        self._used += states.nbytes
        self._states[key] = states.clone()


def _key(example: Encoded) -> bytes:
    return example.ids.tobytes()


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    return args[0] if args else kwargs["hidden_states"]
