"""The black box as the published code computes it: what flaretune's own is measured, and checked, against.

Written from the formulas, with torch and the model's own modules only, and nothing of `models/` but the prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from flaretune.data.encode import Encoded
from flaretune.models.soft_prompt import SoftPrompt
from flaretune.tasks.spec import Kind


@dataclass(frozen=True)
class Padded:
    """B examples padded behind the text to L tokens, the prompt's n among them.

    Attributes:
        order: index of each example as it was given, int64, shape (B,).
        ids: int64, shape (B, L).
        attention: 1 for tokens, 0 for padding, int64, shape (B, L).
        places: positions of the prompt, int64, shape (B, n).
        answers: position of the answer, int64, shape (B,).
    """

    order: np.ndarray
    ids: torch.Tensor
    attention: torch.Tensor
    places: torch.Tensor
    answers: torch.Tensor


class Baseline:
    """Answers like `models.black_box.BlackBox`: one candidate at a time, all examples padded to the longest.

    The logits of the whole vocabulary are computed, at the answer position only, and the label words' picked.

    Args:
        model: …ForMaskedLM of RoBERTa's architecture (prompt in mode ``add``) or a …ForCausalLM (mode of the examples).
        kind: which of the two.
        soft_prompt: how a search point becomes a prompt.
        label_ids: token ids of the label words, int, shape (C,).
        together: ask all candidates in one forward pass instead, for measuring what that brings.
        batch_size: sort by length and ask this many examples in a forward pass instead; 0: all as they come.
    """

    def __init__(
        self,
        model: nn.Module,
        kind: Kind,
        soft_prompt: SoftPrompt,
        label_ids: np.ndarray,
        *,
        together: bool = False,
        batch_size: int = 0,
    ):
        self._model = model
        self._kind = kind
        self._soft_prompt = soft_prompt
        self._label_ids = torch.as_tensor(label_ids, device=model.device)
        self._together = together
        self._batch_size = batch_size

    def register(self, examples: Sequence[Encoded]) -> list[Padded]:
        """Token ids as tensors, once for all candidates."""
        order = np.arange(len(examples))
        if self._batch_size:
            order = np.argsort([len(e.ids) for e in examples], kind="stable")
        size = self._batch_size or len(order)
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        return [self._pad(batch, [examples[i] for i in batch]) for batch in batches]

    @torch.inference_mode()
    def label_logits(self, points: np.ndarray, texts: list[Padded]) -> np.ndarray:
        """Logits of the label words: search points, float (λ, d) → float32 (λ, N, C)."""
        prompts = self._soft_prompt.prompts(points)  # (λ, n, D)
        logits = np.empty((len(prompts), sum(len(t.order) for t in texts), len(self._label_ids)), dtype=np.float32)
        for batch in texts:
            groups = [prompts] if self._together else prompts.split(1)
            found = torch.cat([self._ask(group, batch) for group in groups])  # (λ, B, C)
            logits[:, batch.order] = found.cpu().numpy()
        return logits

    def _pad(self, order: np.ndarray, examples: Sequence[Encoded]) -> Padded:
        n = self._soft_prompt.n_tokens
        room = n if self._kind == "causal" else 0  # in mode `add`, placeholders are there already
        pad_id = self._model.config.pad_token_id or 0
        rows = [np.insert(e.ids, e.insert, [pad_id] * room) for e in examples]
        longest = max(len(row) for row in rows)
        tensors = (
            np.stack([np.pad(row, (0, longest - len(row)), constant_values=pad_id) for row in rows]),
            np.stack([np.arange(longest) < len(row) for row in rows]).astype(np.int64),
            np.stack([np.arange(e.insert, e.insert + n) for e in examples]),
            np.array([e.answer + room for e in examples]),
        )
        return Padded(order, *(torch.from_numpy(tensor).to(self._model.device) for tensor in tensors))

    def _ask(self, prompts: torch.Tensor, batch: Padded) -> torch.Tensor:
        """k prompts, float (k, n, D), with each of B examples: float32, shape (k, B, C)."""
        k, b = len(prompts), len(batch.order)
        ids, attention = batch.ids.repeat(k, 1), batch.attention.repeat(k, 1)  # (kB, L)
        rows, places = torch.arange(k * b, device=ids.device), batch.places.repeat(k, 1)
        vectors = prompts.to(self._model.dtype).repeat_interleave(b, dim=0)  # (kB, n, D)
        layers = self._model.base_model
        if self._kind == "masked":
            embedded = layers.embeddings(input_ids=ids)  # (kB, L, D)
            embedded[rows[:, None], places] += vectors
            unseen = (1 - attention[:, None, None, :]).to(embedded.dtype) * torch.finfo(embedded.dtype).min
            hidden = layers.encoder(embedded, attention_mask=unseen).last_hidden_state
        else:
            embedded = self._model.get_input_embeddings()(ids)
            embedded[rows[:, None], places] = vectors
            hidden = layers(inputs_embeds=embedded, attention_mask=attention, use_cache=False).last_hidden_state
        logits = self._model.lm_head(hidden[rows, batch.answers.repeat(k)])  # (kB, whole vocabulary)
        return logits[:, self._label_ids].float().view(k, b, -1)
