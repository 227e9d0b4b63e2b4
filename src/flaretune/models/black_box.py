"""The black box of the paper: search points and a registered set of texts in, label-word logits out."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from flaretune.data.encode import Encoded
from flaretune.models.causal import CausalLM
from flaretune.models.masked import MaskedLM
from flaretune.models.progress import Progress, in_silence
from flaretune.models.rows import Part
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
        batches: the examples of each batch.
        order: for each position in the sorted order, the example's index as it was given, int64, shape (N,).
        caches: per batch, the computed text in front of the prompt; None where it is computed every time.
    """

    batches: list[list[Encoded]]
    order: np.ndarray
    caches: list[TextCache | None]

    def __len__(self) -> int:
        return len(self.order)


@dataclass(frozen=True, eq=False)
class Question:
    """λ search points, float, shape (λ, d), and the texts that each of them is tried on."""

    points: np.ndarray
    texts: TextSet


class BlackBox:
    """Answers questions about texts and prompts with forward passes only, and counts them.

    Args:
        lm: the model behind it.
        soft_prompt: how a search point becomes a prompt.
        batch_size: examples in a forward pass; each is asked with all candidates at once.
        cache_mb: memory for cached texts (causal models, prompt in ``suffix`` position), in MiB. A `TextSet` that
            nobody holds any more gives its share back.

    Attributes:
        make_room: called while that memory is full; lets go of a `TextSet` and says whether there was one.
        example_forwards: examples sent through the model so far.
    """

    def __init__(self, lm: MaskedLM | CausalLM, soft_prompt: SoftPrompt, batch_size: int, cache_mb: int = 0):
        self._lm = lm
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
        batches = [
            [examples[i] for i in order[start : start + self._batch_size]]
            for start in range(0, len(order), self._batch_size)
        ]
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
        return self.answer([Question(points, texts)], progress)[0]

    def answer(self, questions: Sequence[Question], progress: Progress = in_silence) -> list[np.ndarray]:
        """`label_logits` for several questions, whose texts share forward passes as far as `batch_size` allows.

        What a text is batched with changes its logits in the last bits, and in bfloat16 more than that.
        """
        prompts = [self._soft_prompt.prompts(question.points) for question in questions]
        answers: list[list] = [[None] * len(question.texts.batches) for question in questions]
        for group in progress(self._groups([question.texts for question in questions]), "batch"):
            batches = [(prompts[q], questions[q].texts, b) for q, b in group]
            parts = [Part(points, texts.batches[b], texts.caches[b]) for points, texts, b in batches]
            for (q, b), logits in zip(group, self._lm.joint_label_logits(parts), strict=True):
                answers[q][b] = logits.cpu().numpy()
        self.example_forwards += sum(len(question.points) * len(question.texts) for question in questions)
        found = []
        for question, in_batches in zip(questions, answers, strict=True):
            in_sorted_order = np.concatenate(in_batches, axis=1)
            logits = np.empty_like(in_sorted_order)
            logits[:, question.texts.order] = in_sorted_order
            found.append(logits)
        return found

    def _groups(self, sets: Sequence[TextSet]) -> list[list[tuple[int, int]]]:
        """Which batches are asked together, as pairs (index of the set, index of its batch)."""
        groups: list[list[tuple[int, int]]] = []

        def size(place: tuple[int, int]) -> int:
            return len(sets[place[0]].batches[place[1]])

        def longest(place: tuple[int, int]) -> int:
            return max(len(example.ids) for example in sets[place[0]].batches[place[1]])

        def fits(place: tuple[int, int], group: list[tuple[int, int]]) -> bool:
            alike = len({sets[s].caches[b] is None for s, b in [place, *group]}) == 1
            return alike and sum(map(size, [place, *group])) <= self._batch_size

        for place in sorted(((s, b) for s, texts in enumerate(sets) for b in range(len(texts.batches))), key=longest):
            group = next((group for group in groups if fits(place, group)), None)
            if group is None:
                groups.append([place])
            else:
                group.append(place)
        return groups

    def _cache(self, batches: list[list[Encoded]]) -> list[TextCache | None]:
        """Compute the text in front of the prompt, for as many batches as memory allows."""
        caches: list[TextCache | None] = [None] * len(batches)
        if self._cache_bytes == 0 or not isinstance(self._lm, CausalLM):
            return caches
        for i, batch in enumerate(batches):
            if max(e.insert for e in batch) <= 1:
                continue  # one token in front (the start token of `prefix`) is not worth keeping
            cache = self._lm.cache_text(batch)
            while (full := self._cached_bytes() + cache.nbytes() > self._cache_bytes) and self.make_room():
                pass
            if full:
                log.info(
                    "the cache for texts is full: %d of %d batches are computed for every candidate (see --cache_mb)",
                    len(batches) - i,
                    len(batches),
                )
                break
            self._caches.add(cache)
            caches[i] = cache
        return caches

    def _cached_bytes(self) -> int:
        return sum(cache.nbytes() for cache in self._caches)
