"""Causal language models (LLaMA, Gemma, GPT-2, …): the prompt is a run of embedding vectors in the text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache

from flaretune.data.encode import Encoded
from flaretune.models.label_head import at_answers
from flaretune.models.last_layer import last_feed_forward, only_at
from flaretune.models.padding import pad_left, pad_right
from flaretune.models.rows import Part, rows_of, split_by_part
from flaretune.models.text_cache import TextCache, cache_for_rows


class CausalLM:
    """Answers with the label words' logits for the token after the text.

    A row is [text in front | prompt | text behind]: the text in front is padded on the left and the text
    behind on the right, so that all prompts of a batch stand in the same columns. With the prompt right
    behind the start token this is the ``prefix`` of the paper; with the prompt between the text and the
    template's tail it is ``suffix``, where the text in front can be computed once (`cache_text`).

    Args:
        model: …ForCausalLM, its head narrowed by `narrow_to_label_words`.
        pad_id: a token for padding; never seen through the attention mask.
        classes: the class of each label word, see `at_answers`.
    """

    def __init__(self, model: nn.Module, pad_id: int, classes: np.ndarray | None = None):
        self._model = model
        self._feed_forward = last_feed_forward(model)
        self._pad_id = pad_id
        self._classes = classes

    @property
    def hidden_size(self) -> int:
        """D, the size of a prompt vector."""
        return self._model.get_input_embeddings().weight.shape[1]

    @property
    def vocab_size(self) -> int:
        """Rows of the word-embedding matrix."""
        return self._model.get_input_embeddings().weight.shape[0]

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """What the embedding layer gives for token ids, its scaling (Gemma) included, shape (N,) → (N, D)."""
        with torch.inference_mode():
            return self._model.get_input_embeddings()(ids.to(self._model.device))

    def row_tokens(self, example: Encoded, n_prompt: int) -> int:
        """Tokens that one row of this example costs without a cache, for sorting and batching."""
        return len(example.ids) + n_prompt

    def cache_text(self, examples: Sequence[Encoded]) -> TextCache:
        """Compute keys and values of the text in front of the prompt, for reuse by every candidate."""
        device = self._model.device
        ids, attention = pad_left([e.ids[: e.insert] for e in examples], self._pad_id, device)
        cache = DynamicCache()  # no configuration: windows are kept by the masks, not by dropping keys
        with torch.inference_mode():
            self._model.base_model(
                input_ids=ids,
                attention_mask=attention,
                position_ids=_positions(attention),
                past_key_values=cache,
                use_cache=True,
            )
        return TextCache([(layer.keys, layer.values) for layer in cache.layers], attention)

    def label_logits(
        self, prompts: torch.Tensor, examples: Sequence[Encoded], text: TextCache | None = None
    ) -> torch.Tensor:
        """Ask for every pair of prompt and example.

        Args:
            prompts: float, shape (λ, n, D).
            examples: B encoded examples.
            text: what `cache_text` gave for the same examples; None computes everything here.

        Returns:
            float32, shape (λ, B, C).
        """
        return self.joint_label_logits([Part(prompts, examples, text)])[0]

    def joint_label_logits(self, parts: Sequence[Part]) -> list[torch.Tensor]:
        """The same for several questions in one forward pass: for each part float32, shape (λ, B, C)."""
        rows = rows_of(parts, example_major=True)
        n_prompt, device = rows.prompts.shape[1], rows.prompts.device
        embed = self._model.get_input_embeddings()
        before_ids, before = pad_left([e.ids[: e.insert] for e in rows.examples], self._pad_id, device)
        after_ids, after = pad_right([e.ids[e.insert :] for e in rows.examples], self._pad_id, device)
        answers = torch.tensor([e.answer - e.insert for e in rows.examples], device=device) + n_prompt

        with torch.inference_mode():
            prompts = rows.prompts.to(self._model.dtype)[rows.prompt_of]  # (R, n, D)
            pieces = [prompts, embed(after_ids)[rows.example_of]]
            attention = torch.cat([before, before.new_ones(len(before), n_prompt), after], dim=1)
            positions = _positions(attention)
            cache = None
            if parts[0].text is not None:
                cache = cache_for_rows([part.text for part in parts], [len(part.prompts) for part in parts])
                positions = positions[:, before.shape[1] :]
            else:
                pieces.insert(0, embed(before_ids)[rows.example_of])
                answers = answers + before.shape[1]
            answers = answers[rows.example_of]
            with only_at(self._feed_forward, answers):
                logits = self._model(
                    inputs_embeds=torch.cat(pieces, dim=1),
                    attention_mask=attention[rows.example_of],
                    position_ids=positions[rows.example_of],
                    past_key_values=cache,
                    use_cache=cache is not None,
                ).logits  # (R, columns, C)
        logits = at_answers(logits, answers, self._classes)
        return split_by_part(logits, parts, example_major=True)


def _positions(attention: torch.Tensor) -> torch.Tensor:
    """Position of each token counted over what is not padding, int64, shape as the mask."""
    return (attention.cumsum(dim=1) - 1).clamp(min=0)
