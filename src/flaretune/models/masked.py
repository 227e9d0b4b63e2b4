"""Masked language models (RoBERTa, BERT, …): prompts are put into the output of the embedding layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from flaretune.data.encode import Encoded
from flaretune.errors import UserError
from flaretune.models.label_head import at_answers
from flaretune.models.last_layer import last_feed_forward, only_at
from flaretune.models.padding import pad_right
from flaretune.models.rows import Part, rows_of, split_by_part


class MaskedLM:
    """Answers with the label words' logits at the mask token.

    Mode ``add``: the prompt is added to the embedding layer's output at the placeholders, right behind the
    start token. Mode ``cat``: it is put in front of that output, without position embedding or LayerNorm
    of its own, and attention sees it. Both through a hook on the model's own embedding layer: a prompt
    given as ``inputs_embeds`` would pass through position embedding and LayerNorm.

    Args:
        model: …ForMaskedLM, its head narrowed by `narrow_to_label_words`.
        mode: ``add`` or ``cat``.
        pad_id: the padding token.
        classes: the class of each label word, see `at_answers`.
    """

    def __init__(self, model: nn.Module, mode: str, pad_id: int, classes: np.ndarray | None = None):
        self._model = model
        self._mode = mode
        self._pad_id = pad_id
        self._classes = classes
        self._feed_forward = last_feed_forward(model)
        self._embeddings = getattr(model.base_model, "embeddings", None)
        if self._embeddings is None:
            raise UserError(
                f"{type(model).__name__} keeps its embedding layer under a name that is not known here; "
                "masked models with an `embeddings` module (RoBERTa, BERT, DistilBERT, …) work"
            )

    @property
    def hidden_size(self) -> int:
        """D, the size of a prompt vector: what the embedding layer gives."""
        with torch.inference_mode():
            return self._embeddings(torch.zeros(1, 1, dtype=torch.int64, device=self._model.device)).shape[-1]

    @property
    def vocab_size(self) -> int:
        """Rows of the word-embedding matrix."""
        return self._model.get_input_embeddings().weight.shape[0]

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Word embeddings of token ids, shape (N,) → (N, D)."""
        with torch.inference_mode():
            return self._model.get_input_embeddings()(ids.to(self._model.device))

    def row_tokens(self, example: Encoded, n_prompt: int) -> int:
        """Tokens that one row of this example costs, for sorting and batching."""
        return len(example.ids) + (n_prompt if self._mode == "cat" else 0)

    def label_logits(self, prompts: torch.Tensor, examples: Sequence[Encoded]) -> torch.Tensor:
        """Ask for every pair of prompt and example.

        Args:
            prompts: float, shape (λ, n, D).
            examples: B encoded examples, padded here to the longest.

        Returns:
            float32, shape (λ, B, C).
        """
        return self.joint_label_logits([Part(prompts, examples)])[0]

    def joint_label_logits(self, parts: Sequence[Part]) -> list[torch.Tensor]:
        """The same for several questions in one forward pass: for each part float32, shape (λ, B, C)."""
        rows = rows_of(parts, example_major=False)
        n_prompt, device = rows.prompts.shape[1], rows.prompts.device
        ids, attention = pad_right([e.ids for e in rows.examples], self._pad_id, device)  # (E, L)
        answers = torch.tensor([e.answer for e in rows.examples], device=device)
        ids, attention, answers = ids[rows.example_of], attention[rows.example_of], answers[rows.example_of]  # (R, L)
        prompts = rows.prompts.to(self._model.dtype)[rows.prompt_of]  # (R, n, D)
        if self._mode == "cat":
            attention = torch.cat([attention.new_ones(len(prompts), n_prompt), attention], dim=1)
            answers = answers + n_prompt
        insert = rows.examples[0].insert

        def inject(_module, _args, embedded):  # embedded: (R, L, D)
            if self._mode == "cat":
                return torch.cat([prompts, embedded], dim=1)
            embedded[:, insert : insert + n_prompt] += prompts
            return embedded

        handle = self._embeddings.register_forward_hook(inject)
        try:
            with torch.inference_mode(), only_at(self._feed_forward, answers):
                logits = self._model(input_ids=ids, attention_mask=attention).logits  # (R, L or n + L, C)
        finally:
            handle.remove()
        return split_by_part(at_answers(logits, answers, self._classes), parts, example_major=False)
