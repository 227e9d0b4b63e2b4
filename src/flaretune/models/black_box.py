"""The black box of the paper: search points and a registered set of texts in, label-word logits out."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from flaretune.data.encode import Encoded
from flaretune.models.causal import CausalLM
from flaretune.models.lanes import FEWEST_TEXTS, SideBySide
from flaretune.models.masked import MaskedLM
from flaretune.models.progress import Progress, in_silence
from flaretune.models.soft_prompt import SoftPrompt
from flaretune.models.text_cache import TextCache

log = logging.getLogger(__name__)


def default_batch_size(device: torch.device, cached: bool = False) -> int:
    """What the option `--batch_size 0` stands for: examples in a forward pass, whose texts may be cached ones."""
    if device.type == "cuda":
        return 64
    return 16 if cached else 8  # of a cached text a row has few tokens left


@dataclass(eq=False)
class TextSet:
    """Texts registered with a black box, in batches sorted by length.

    Attributes:
        order: for each position in the sorted order, the example's index as it was given, int64, shape (N,).
        caches: per batch, the computed text in front of the prompt; None where it is computed every time.
    """

    batches: list[list[Encoded]]
    order: np.ndarray
    caches: list[TextCache | None]

    def __len__(self) -> int:
        return len(self.order)


class BlackBox:
    """Answers questions about texts and prompts with forward passes only, and counts them.

    Args:
        batch_size: examples in a forward pass; each is asked with all candidates at once.
        cache_mb: memory for cached texts (causal models, prompt in ``suffix`` position), in MiB. A `TextSet` that
            nobody holds any more gives its share back.
        side_by_side: the model for several passes at a time; None for one after the other in the caller's thread.
        divide: make a batch for every lane of texts that would be fewer.

    Attributes:
        make_room: called while that memory is full; lets go of a `TextSet` and says whether there was one.
        example_forwards: examples sent through the model so far.
    """

    def __init__(
        self,
        lm: MaskedLM | CausalLM,
        soft_prompt: SoftPrompt,
        batch_size: int,
        cache_mb: int = 0,
        side_by_side: SideBySide[MaskedLM | CausalLM] | None = None,
        divide: bool = False,
    ):
        self._lm = lm
        self._side_by_side = side_by_side
        self._divide = divide
        self._soft_prompt = soft_prompt
        self._batch_size = batch_size
        self._cache_bytes = cache_mb * 2**20
        self._caches: weakref.WeakSet[TextCache] = weakref.WeakSet()  # those in use
        self.make_room: Callable[[], bool] = lambda: False
        self.example_forwards = 0

    @property
    def hidden_size(self) -> int:
        """D, the size of a prompt vector."""
        return self._soft_prompt.hidden_size

    @property
    def intrinsic_dim(self) -> int:
        """d, the numbers in a search point."""
        return self._soft_prompt.intrinsic_dim

    def register(self, examples: Sequence[Encoded], reuse: bool = True) -> TextSet:
        """Sort texts into batches; with `reuse`, keep the part in front of the prompt computed if memory allows."""
        n_prompt = self._soft_prompt.n_tokens
        order = np.argsort([self._lm.row_tokens(e, n_prompt) for e in examples], kind="stable")
        size = self._size_of_batches(len(order))
        batches = [[examples[i] for i in order[start : start + size]] for start in range(0, len(order), size)]
        return TextSet(batches, order, self._cache(batches) if reuse else [None] * len(batches))

    def label_logits(self, points: np.ndarray, texts: TextSet, progress: Progress = in_silence) -> np.ndarray:
        """Logits of the label words for every candidate and text.

        Args:
            points: λ search points, float, shape (λ, d).
            texts: what `register` gave.
            progress: gets the forward passes to go through, and their unit.

        Returns:
            float32, shape (λ, N, C), texts in the order they were given in.
        """
        prompts = self._soft_prompt.prompts(points)
        batches = list(zip(texts.batches, texts.caches, strict=True))
        found = self._passes(lambda lm, both: lm.label_logits(prompts, *both).cpu().numpy(), progress(batches, "batch"))
        self.example_forwards += len(points) * len(texts)
        in_sorted_order = np.concatenate(found, axis=1)
        logits = np.empty_like(in_sorted_order)
        logits[:, texts.order] = in_sorted_order
        return logits

    def _size_of_batches(self, n_texts: int) -> int:
        if not self._divide or self._side_by_side is None:
            return self._batch_size
        share = -(-n_texts // self._side_by_side.lanes.count)
        return min(self._batch_size, max(share, FEWEST_TEXTS))

    def _passes(self, function: Callable[[Any, Any], Any], items: Iterable[Any]) -> list[Any]:
        """What a function of model and item gives for all items."""
        if self._side_by_side is None:
            return [function(self._lm, item) for item in items]
        return self._side_by_side.passes(function, items)

    def _cache(self, batches: list[list[Encoded]]) -> list[TextCache | None]:
        """Compute the text in front of the prompt, for as many batches as memory allows."""
        caches: list[TextCache | None] = [None] * len(batches)
        if self._cache_bytes == 0 or not isinstance(self._lm, CausalLM):
            return caches
        # one token in front (the start token of `prefix`) is not worth keeping
        worth = [i for i, batch in enumerate(batches) if max(e.insert for e in batch) > 1]
        at_a_time = self._side_by_side.lanes.count if self._side_by_side else 1
        for start in range(0, len(worth), at_a_time):
            some = worth[start : start + at_a_time]
            computed = self._passes(lambda lm, batch: lm.cache_text(batch), [batches[i] for i in some])
            for i, cache in zip(some, computed, strict=True):
                if not self._fits(cache):
                    log.info(
                        "the cache for texts is full: %d of %d batches are computed for every candidate (see "
                        "--cache_mb)",
                        len(batches) - i,
                        len(batches),
                    )
                    return caches
                self._caches.add(cache)
                caches[i] = cache
        return caches

    def _fits(self, cache: TextCache) -> bool:
        """Whether there is memory for it, or is now."""
        while (full := self._cached_bytes() + cache.nbytes() > self._cache_bytes) and self.make_room():
            pass
        return not full

    def _cached_bytes(self) -> int:
        return sum(cache.nbytes() for cache in self._caches)
