"""From the published code's way to flaretune's, each step changed in one thing, and what each is measured by."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from flaretune.data.encode import Encoded
from flaretune.errors import UserError
from flaretune.models.black_box import BlackBox, default_batch_size
from flaretune.models.soft_prompt import SoftPrompt
from flaretune.tasks.spec import Kind
from measurements.baseline import Baseline
from measurements.random_model import black_box_of, label_word_ids, narrowed
from measurements.timing import seconds_of
from measurements.work import Counting, Work, tokens_computed


@dataclass(frozen=True)
class Step:
    """A way to answer.

    Attributes:
        name: what is new in it.
        model: what it asks.
        box: does the asking.
        cached: the text in front of the prompt is computed when it is registered.
    """

    name: str
    model: nn.Module
    box: Baseline | BlackBox
    cached: bool = False


@dataclass(frozen=True)
class Generation:
    """What is asked: every search point with every example.

    Attributes:
        points: float64, shape (λ, d).
        examples: N of them.
        perturbed: the same perturbed, asked too and registered once in `local_iter` generations; or None.
        n_prompt: n.
    """

    points: np.ndarray
    examples: list[Encoded]
    perturbed: list[Encoded] | None
    local_iter: int
    n_prompt: int

    @property
    def example_forwards(self) -> int:
        """Pairs of search point and example."""
        return len(self.points) * len(self.examples) * (1 if self.perturbed is None else 2)


def steps_of(
    exact: nn.Module,
    kind: Kind,
    prompt: SoftPrompt,
    *,
    dtype: torch.dtype,
    batch_size: int,
    cache_mb: int,
    all_steps: bool,
) -> list[Step]:
    """All steps, or the first and the last.

    Args:
        exact: the float32 model, which the published way asks.
        kind: masked or causal.
        prompt: how a search point becomes a prompt.
        dtype: what the others compute in.
        batch_size: of the batches sorted by length; 0: what jobs use.
        cache_mb: memory for cached texts, in MiB; 0: leave that step out.
        all_steps: or the first and the last only.
    """
    held = exact if exact.dtype == dtype else copy.deepcopy(exact).to(dtype)
    narrow, words = narrowed(held, kind), label_word_ids(exact)
    in_a_pass, of_cached = (batch_size or default_batch_size(exact.device, cached) for cached in (False, True))

    def plain(model: nn.Module, **ways) -> Baseline:
        return Baseline(model, kind, prompt, words, **ways)

    steps = [Step("baseline", exact, plain(exact))]
    if held is not exact:
        steps.append(Step("bfloat16", held, plain(held)))
    steps += [
        Step("all candidates together", held, plain(held, together=True)),
        Step("sorted by length, in batches", held, plain(held, together=True, batch_size=in_a_pass)),
        Step("label words, at the answers only", narrow, black_box_of(narrow, kind, prompt, in_a_pass, 0)),
    ]
    if kind == "causal" and cache_mb:
        steps.append(Step("cached text", narrow, black_box_of(narrow, kind, prompt, of_cached, cache_mb), True))
    return steps if all_steps else [steps[0], steps[-1]]


def timer(step: Step, asked: Generation, device: torch.device) -> tuple[Callable[[], float], np.ndarray]:
    """Make ready to measure a step.

    Returns:
        A function that answers one generation and gives its seconds, with a round's registration of perturbed
        texts shared out over the round's generations; and the answers to the first search point, float32
        (1, N, C), which is asked untimed: kernels are loaded and weights laid out then.

    Raises:
        UserError: the texts do not fit into the memory for them.
    """
    texts = _register(step, asked.examples)

    def ask(registered: Any) -> float:
        return seconds_of(lambda: step.box.label_logits(asked.points, registered), device)

    def generation() -> float:
        if asked.perturbed is None:
            return ask(texts)
        registered: list[Any] = []
        registering = seconds_of(lambda: registered.append(_register(step, asked.perturbed)), device)
        return ask(texts) + ask(registered[0]) + registering / asked.local_iter

    untimed = asked.points if device.type == "cuda" else asked.points[:1]  # kernels are chosen by size on a GPU
    return generation, step.box.label_logits(untimed, texts)[:1]


def work_of(step: Step, asked: Generation, counting: Counting) -> tuple[Work, float]:
    """What a step computes in a generation: without padding, and the tokens with it, as many for each search point."""
    work = counting.generation(asked.examples, asked.n_prompt, len(asked.points), step.cached)
    texts = _register(step, asked.examples)
    one_point = asked.points[:1]
    computed = len(asked.points) * tokens_computed(step.model, lambda: step.box.label_logits(one_point, texts))
    if asked.perturbed is None:
        return work, computed
    registering = counting.text_in_front(asked.examples) if step.cached else Work(0, 0)
    computed_registering = tokens_computed(step.model, lambda: _register(step, asked.perturbed))
    return work * 2 + registering * (1 / asked.local_iter), 2 * computed + computed_registering / asked.local_iter


def _register(step: Step, examples: list[Encoded]) -> Any:
    texts = step.box.register(examples)
    if step.cached and None in texts.caches:
        raise UserError("--cache_mb is too small for the texts of this measurement; give more, or 0 for no cache")
    return texts
