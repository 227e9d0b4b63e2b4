"""Causal language models (LLaMA, Gemma, GPT-2, …): the prompt is a run of embedding vectors in the text.

The model gets token ids, padding in the prompt's place, and its embedding layer gives the prompt there: some models
scale embeddings only of ids (Falcon-H1), or look up more than embeddings by them (Gemma 3n and 4: those of each layer,
padding's for all that is no text, as they do with images themselves).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache

from flaretune.data.encode import Encoded
from flaretune.models.label_head import at_answers
from flaretune.models.last_layer import last_feed_forward, only_at
from flaretune.models.padding import pad
from flaretune.models.text_cache import TextCache, cache_for_rows


class CausalLM:
    """Answers with the label words' logits for the token after the text.

    A row is [text in front | prompt | text behind], padded on the right. With the prompt right behind the start
    token this is the ``prefix`` of the paper; with the prompt between the text and the template's tail it is
    ``suffix``, where the text in front can be computed once (`cache_text`); that is padded on the left, so that all
    prompts of a batch stand in the same columns. Models that know no positions but columns take no such text.

    Args:
        model: …ForCausalLM, its head narrowed by `narrow_to_label_words`.
        pad_id: a token for padding; never seen through the attention mask.
        classes: the class of each label word, see `at_answers`.
        at_answers_only: compute the last layer's feed-forward part at the answers alone, see `last_layer`.
    """

    def __init__(self, model: nn.Module, pad_id: int, classes: np.ndarray | None = None, at_answers_only: bool = True):
        self._model = model
        self._feed_forward = last_feed_forward(model) if at_answers_only else None
        self._pad_id = pad_id
        self._classes = classes
        # transformers 5.24 calls the cache `cache`, and warns of the old name
        self._cache_name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"

    @property
    def hidden_size(self) -> int:
        """D, the size of a prompt vector."""
        return self._model.get_input_embeddings().weight.shape[1]

    def row_tokens(self, example: Encoded, n_prompt: int) -> int:
        """Tokens that one row of this example costs without a cache, for sorting and batching."""
        return len(example.ids) + n_prompt

    def cache_text(self, examples: Sequence[Encoded]) -> TextCache:
        """Compute keys and values of the text in front of the prompt, for reuse by every candidate."""
        device = self._model.get_input_embeddings().weight.device
        ids, attention = pad([e.ids[: e.insert] for e in examples], self._pad_id, device, "left")
        cache = DynamicCache()  # no configuration: windows are kept by the masks, not by dropping keys
        with torch.inference_mode():
            self._model.base_model(
                input_ids=ids,
                attention_mask=attention,
                position_ids=_positions(attention),
                **{self._cache_name: cache},
                use_cache=True,
            )
        return TextCache([(layer.keys, layer.values) for layer in cache.layers], attention)

    def label_logits(
        self,
        prompts: torch.Tensor,
        examples: Sequence[Encoded],
        text: TextCache | None = None,
        prompt_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits of the label words for every pair of prompt and example, in one forward pass.

        Args:
            prompts: float, shape (λ, n, D).
            examples: B encoded examples.
            text: what `cache_text` gave for the same examples; None computes everything here.
            prompt_ids: token ids in the prompt's place, int64 (n,); None for padding.

        Returns:
            float32, shape (λ, B, C).
        """
        n_candidates, n_prompt, _ = prompts.shape
        device = prompts.device
        starts = [e.insert if text is None else 0 for e in examples]  # column of the prompt
        rows = [e.ids[e.insert - start :] for e, start in zip(examples, starts, strict=True)]
        in_place = np.full(n_prompt, self._pad_id) if prompt_ids is None else prompt_ids.cpu().numpy()
        rows = [np.insert(row, start, in_place) for row, start in zip(rows, starts, strict=True)]
        ids, attention = pad(rows, self._pad_id, device)  # (B, columns)
        answers = [e.answer - e.insert + start + n_prompt for e, start in zip(examples, starts, strict=True)]

        def by_row(of_examples: torch.Tensor) -> torch.Tensor:  # (B, …) → (λB, …): an example with every prompt
            return of_examples.repeat_interleave(n_candidates, dim=0)

        answers = by_row(torch.tensor(answers, device=device))
        columns = by_row(torch.tensor(starts, device=device))[:, None] + torch.arange(n_prompt, device=device)

        def inject(_module, _args, embedded: torch.Tensor) -> torch.Tensor:  # (λB, columns, D)
            vectors = prompts.to(embedded).repeat(len(examples), 1, 1)
            embedded[torch.arange(len(embedded), device=device)[:, None], columns] = vectors
            return embedded

        cache = None
        if text is not None:
            attention = torch.cat([text.attention, attention], dim=1)
            cache = cache_for_rows(text, n_candidates)
        positions = _positions(attention)[:, attention.shape[1] - ids.shape[1] :]
        injected = self._model.get_input_embeddings().register_forward_hook(inject)
        with injected, torch.inference_mode(), only_at(self._feed_forward, answers):
            logits = self._model(
                input_ids=by_row(ids),
                attention_mask=by_row(attention),
                position_ids=by_row(positions),
                **{self._cache_name: cache},
                use_cache=cache is not None,
            ).logits  # (λB, columns, C)
        logits = at_answers(logits, answers, self._classes)
        return logits.view(len(examples), n_candidates, -1).transpose(0, 1)


def _positions(attention: torch.Tensor) -> torch.Tensor:
    """Position of each token counted over what is not padding, int64, shape as the mask."""
    return (attention.cumsum(dim=1) - 1).clamp(min=0)
