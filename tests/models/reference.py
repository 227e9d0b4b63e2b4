"""The black box computed the plain way: one example and one prompt at a time, no padding, no cache, the whole head.

Takes models as the transformers library loads them and returns float32 label logits, shape (λ, N, C).
"""

from __future__ import annotations

import torch


@torch.no_grad()
def masked_logits(model, mode, prompts, examples, label_ids) -> torch.Tensor:
    """Embedding layer, encoder and head of a masked model called one by one."""
    rows = [torch.stack([_masked_row(model, mode, p, e)[label_ids] for e in examples]) for p in prompts]
    return torch.stack(rows)


@torch.no_grad()
def causal_logits(model, prompts, examples, label_ids) -> torch.Tensor:
    """Embedding vectors in, logits of the last position out; positions count from zero."""
    embed = model.get_input_embeddings()

    def row(prompt, example):
        ids = torch.tensor(example.ids)
        vectors = torch.cat([embed(ids[: example.insert]), prompt, embed(ids[example.insert :])])
        return model(inputs_embeds=vectors[None], use_cache=False).logits[0, -1, label_ids]

    return torch.stack([torch.stack([row(p, e) for e in examples]) for p in prompts])


def _masked_row(model, mode, prompt, example) -> torch.Tensor:
    """Logits of the whole vocabulary at the answer position."""
    base = model.base_model
    ids = torch.tensor(example.ids)[None]
    x = _with_prompt(mode, base.embeddings(input_ids=ids)[0], prompt)[None]
    everything_seen = torch.zeros(1, 1, x.shape[1], x.shape[1])  # added to the attention scores
    encoder = base.transformer if hasattr(base, "transformer") else base.encoder
    hidden = encoder(x, attention_mask=everything_seen).last_hidden_state
    if hasattr(model, "lm_head"):  # RoBERTa
        logits = model.lm_head(hidden)
    elif hasattr(model, "cls"):  # BERT
        logits = model.cls(hidden)
    elif hasattr(model, "predictions"):  # ALBERT
        logits = model.predictions(hidden)
    else:  # DistilBERT
        logits = model.vocab_projector(model.vocab_layer_norm(model.activation(model.vocab_transform(hidden))))
    return logits[0, example.answer + (len(prompt) if mode == "cat" else 0)]


def _with_prompt(mode, embedded, prompt) -> torch.Tensor:
    """(L, D) and (n, D) → what the encoder gets, as the specification says, written out row by row."""
    if mode == "cat":
        return torch.stack([*prompt, *embedded])
    rows = list(embedded)
    for i, vector in enumerate(prompt):
        rows[1 + i] = rows[1 + i] + vector
    return torch.stack(rows)
