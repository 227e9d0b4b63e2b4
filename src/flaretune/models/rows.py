"""Rows of a forward pass: every pair of a prompt and a text that is asked, of one question or of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from flaretune.data.encode import Encoded


@dataclass(frozen=True, eq=False)
class Part:
    """What one question brings to a forward pass: each of its prompts with each of its examples.

    Attributes:
        prompts: float, shape (λ, n, D); n and D are those of all parts.
        examples: B encoded examples.
        text: the computed text in front of the prompt, of the same examples; either all parts have it or none.
    """

    prompts: torch.Tensor
    examples: Sequence[Encoded]
    text: Any = None

    @property
    def n_rows(self) -> int:
        """λB."""
        return len(self.prompts) * len(self.examples)


@dataclass(frozen=True, eq=False)
class Rows:
    """The R rows of a forward pass.

    Attributes:
        prompts: of all parts, shape (P, n, D).
        examples: of all parts, E of them.
        prompt_of: index of each row's prompt, int64, shape (R,).
        example_of: index of each row's example, int64, shape (R,).
    """

    prompts: torch.Tensor
    examples: list[Encoded]
    prompt_of: torch.Tensor
    example_of: torch.Tensor


def rows_of(parts: Sequence[Part], example_major: bool) -> Rows:
    """All rows, part by part.

    Args:
        parts: one or more.
        example_major: a part's example 0 with every prompt, then its example 1, …; otherwise prompt 0 with every
            example, then prompt 1, …
    """
    prompt_of, example_of, first_prompt, first_example = [], [], 0, 0
    for part in parts:
        prompts = torch.arange(len(part.prompts), device=part.prompts.device) + first_prompt
        examples = torch.arange(len(part.examples), device=part.prompts.device) + first_example
        if example_major:
            prompt_of.append(prompts.repeat(len(examples)))
            example_of.append(examples.repeat_interleave(len(prompts)))
        else:
            prompt_of.append(prompts.repeat_interleave(len(examples)))
            example_of.append(examples.repeat(len(prompts)))
        first_prompt, first_example = first_prompt + len(prompts), first_example + len(examples)
    return Rows(
        torch.cat([part.prompts for part in parts]),
        [example for part in parts for example in part.examples],
        torch.cat(prompt_of),
        torch.cat(example_of),
    )


def split_by_part(logits: torch.Tensor, parts: Sequence[Part], example_major: bool) -> list[torch.Tensor]:
    """Undo `rows_of` on the answers: (R, C) → for each part (λ, B, C)."""
    answers = []
    for part, rows in zip(parts, logits.split([part.n_rows for part in parts]), strict=True):
        n_prompts, n_examples = len(part.prompts), len(part.examples)
        if example_major:
            answers.append(rows.view(n_examples, n_prompts, -1).transpose(0, 1))
        else:
            answers.append(rows.view(n_prompts, n_examples, -1))
    return answers
