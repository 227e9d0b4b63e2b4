"""Masked language models (RoBERTa, BERT, …): prompts are put into the output of the embedding layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from flaretune.data.encode import Encoded
from flaretune.errors import UserError
from flaretune.models.label_head import at_answers
from flaretune.models.last_layer import last_feed_forward, only_at
from flaretune.models.padding import pad


class MaskedLM:
    """Answers with the label words' logits at the mask token.

    Mode ``add``: the prompt is added to the embedding layer's output at the placeholders, right behind the
    start token. Mode ``cat``: it is put in front of that output, without position embedding or LayerNorm
    of its own, and attention sees it. Both through a hook on the model's own embedding layer: a prompt
    given as ``inputs_embeds`` would pass through position embedding and LayerNorm. In mode ``cat`` the model
    gets padding's ids in front of the text, so that all that it makes by position has the right length, and
    its embedding layer the text alone.

    Args:
        model: …ForMaskedLM, its head narrowed by `narrow_to_label_words`.
        mode: ``add`` or ``cat``.
        classes: the class of each label word, see `at_answers`.
        at_answers_only: compute the last layer's feed-forward part at the answers alone, see `last_layer`.
    """

    def __init__(
        self,
        model: nn.Module,
        mode: str,
        pad_id: int,
        classes: np.ndarray | None = None,
        at_answers_only: bool = True,
    ):
        self._model = model
        self._mode = mode
        self._pad_id = pad_id
        self._classes = classes
        self._feed_forward = last_feed_forward(model) if at_answers_only else None
        self._embeddings = embedding_layer(model)

    @property
    def hidden_size(self) -> int:
        """D, the size of a prompt vector: what the embedding layer gives."""
        sizes = []
        noted = self._embeddings.register_forward_hook(lambda _module, _args, output: sizes.append(output.shape[-1]))
        with noted, torch.inference_mode():
            device = self._model.get_input_embeddings().weight.device
            # as long as a short text: Funnel takes no single token
            self._model(input_ids=torch.zeros(1, 16, dtype=torch.int64, device=device))
        return sizes[0]

    def row_tokens(self, example: Encoded, n_prompt: int) -> int:
        """Tokens that one row of this example costs, for sorting and batching."""
        return len(example.ids) + (n_prompt if self._mode == "cat" else 0)

    def label_logits(self, prompts: torch.Tensor, examples: Sequence[Encoded], text: None = None) -> torch.Tensor:
        """Logits of the label words for every pair of prompt and example, in one forward pass.

        Args:
            prompts: float, shape (λ, n, D).
            examples: B encoded examples, padded here to the longest.
            text: None, as tokens see what stands behind them: nothing of a text can be computed without the prompt.

        Returns:
            float32, shape (λ, B, C).
        """
        n_candidates, n_prompt, _ = prompts.shape
        ids, attention = pad([e.ids for e in examples], self._pad_id, prompts.device)
        answers = torch.tensor([e.answer for e in examples], device=prompts.device)
        # rows are the first prompt with every example, then the second, …
        ids, attention = ids.repeat(n_candidates, 1), attention.repeat(n_candidates, 1)  # (λB, L)
        answers = answers.repeat(n_candidates)  # (λB,)
        vectors = prompts.to(self._model.dtype).repeat_interleave(len(examples), dim=0)  # (λB, n, D)
        in_front = n_prompt if self._mode == "cat" else 0
        attention = torch.cat([attention.new_ones(len(ids), in_front), attention], dim=1)
        ids = torch.cat([ids.new_full((len(ids), in_front), self._pad_id), ids], dim=1)
        answers = answers + in_front
        insert = examples[0].insert

        def text_alone(_module, args, kwargs):
            cut = {name: _without_columns(value, in_front) for name, value in kwargs.items()}
            if (positions := kwargs.get("position_ids")) is not None:  # those of a text without a prompt
                cut["position_ids"] = positions[:, :-in_front]
            return tuple(_without_columns(value, in_front) for value in args), cut

        def inject(_module, _args, embedded):  # embedded: (λB, L, D)
            if self._mode == "cat":
                return torch.cat([vectors, embedded], dim=1)
            embedded[:, insert : insert + n_prompt] += vectors
            return embedded

        cropped = (
            self._embeddings.register_forward_pre_hook(text_alone, with_kwargs=True) if in_front else nullcontext()
        )
        injected = self._embeddings.register_forward_hook(inject)
        with cropped, injected, torch.inference_mode(), only_at(self._feed_forward, answers):
            logits = self._model(input_ids=ids, attention_mask=attention).logits  # (λB, L or n + L, C)
        return at_answers(logits, answers, self._classes).view(n_candidates, len(examples), -1)


def _without_columns(value: Any, n: int) -> Any:
    """What stands behind the first n tokens of each row, of whatever is given for each token."""
    return value[:, n:] if isinstance(value, torch.Tensor) and value.dim() > 1 else value


def embedding_layer(model: nn.Module) -> nn.Module:
    """Of a masked model: the module `embeddings`, or the word embeddings where nothing else is made of them.

    Raises:
        UserError: the model has neither.
    """
    layer = getattr(model.base_model, "embeddings", None) or model.get_input_embeddings()
    if layer is None:
        raise UserError(
            f"{type(model).__name__} keeps its embedding layer under a name that is not known here; "
            "masked models with an `embeddings` module (RoBERTa, BERT, DistilBERT, …) work"
        )
    return layer
