"""Two short texts with a prompt whose logits a model's own unmodified forward code gives, from token ids alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from flaretune.data.encode import Encoded
from flaretune.data.tokens import start_and_end_ids, text_ids
from flaretune.models.label_head import at_answers
from flaretune.models.load import Pretrained

N_PROMPT, LENGTHS, N_TAIL = 2, (2, 6), 1  # tokens: of the prompt, of the two texts, of the template's tail


@dataclass(frozen=True, eq=False)
class Probe:
    """Two texts of different length, and the embeddings of tokens as the prompt.

    Attributes:
        examples: the texts with a place for the prompt.
        prompt: embeddings of tokens, as a prompt, float32, shape (N_PROMPT, D).
        whole: the texts with these tokens in the prompt's place, which want no prompt.
        own: logits of `whole` by the model's own forward code, one text at a time, float32, shape (2, W).
        embedded: of mode ``cat``, what the embedding layer gives for each of `examples` within `whole`, (L, D).
    """

    examples: list[Encoded]
    prompt: torch.Tensor
    whole: list[Encoded]
    own: torch.Tensor
    embedded: list[torch.Tensor] | None = None

    def in_place(self, model: nn.Module, which: Sequence[int]):
        """Within it, the texts have the positions that they have behind the prompt's tokens (mode ``cat``)."""
        if self.embedded is None:
            return nullcontext()
        return _embedded_as(model.base_model.embeddings, [self.embedded[i] for i in which])


def make_probe(pretrained: Pretrained, mode: str, classes: np.ndarray | None = None) -> Probe:
    """Draw texts and put them through the model's own forward code.

    Args:
        pretrained: the model, its head narrowed or not.
        mode: add, cat, prefix or suffix.
        classes: see `at_answers`.

    Raises:
        Exception: whatever the model stumbles over.
    """
    model, tokenizer = pretrained.model, pretrained.tokenizer
    start, end = start_and_end_ids(tokenizer)
    pool = text_ids(tokenizer)
    wanted = 2 * N_PROMPT + sum(LENGTHS) + N_TAIL
    drawn = np.random.RandomState(0).choice(pool, wanted, replace=len(pool) < wanted).tolist()
    tokens, others, tail, *texts = _split(drawn, N_PROMPT, N_PROMPT, N_TAIL, *LENGTHS)
    if pretrained.kind == "masked":
        texts = [[*text[:1], tokenizer.mask_token_id, *text[1:]] for text in texts]
        tail = end
    insert = [len(start) + (len(text) if mode == "suffix" else 0) for text in texts]
    rows = [[*start, *text, *tail] for text in texts]
    answers = [row.index(tokenizer.mask_token_id) if pretrained.kind == "masked" else len(row) - 1 for row in rows]
    whole = [
        encoded([*row[:at], *tokens, *row[at:]], 0 if pretrained.kind == "masked" else len(start), answer + N_PROMPT)
        for row, at, answer in zip(rows, insert, answers, strict=True)
    ]
    if pretrained.kind == "causal":
        own = _own(pretrained, whole, classes)
        with torch.inference_mode():
            prompt = model.get_input_embeddings()(torch.tensor(tokens, device=model.device)).float()
        examples = [encoded(row, at, len(row) - 1) for row, at in zip(rows, insert, strict=True)]
        return Probe(examples, prompt, whole, own)
    with _captured(model.base_model.embeddings) as outputs:
        own = _own(pretrained, whole, classes)
        if mode == "cat":
            vectors = [output[0] for output in outputs]
            examples = [encoded(e.ids[N_PROMPT:], 0, e.answer - N_PROMPT) for e in whole]
            return Probe(examples, vectors[0][:N_PROMPT].float(), whole, own, [v[N_PROMPT:] for v in vectors])
        span = slice(len(start), len(start) + N_PROMPT)
        examples = [encoded([*e.ids[: span.start], *others, *e.ids[span.stop :]], span.start, e.answer) for e in whole]
        _own(pretrained, examples, classes)
    with_tokens, with_others = outputs[0][0, span].float(), outputs[2][0, span].float()
    return Probe(examples, with_tokens - with_others, whole, own)


def encoded(ids: Sequence[int], insert: int, answer: int) -> Encoded:
    return Encoded(np.array(ids, dtype=np.int64), insert, answer, np.zeros(len(ids), dtype=bool))


@torch.inference_mode()
def _own(pretrained: Pretrained, examples: Sequence[Encoded], classes: np.ndarray | None) -> torch.Tensor:
    """Logits at the answers, of one text at a time, float32, shape (B, W)."""
    model, found = pretrained.model, []
    extra = {"use_cache": False} if pretrained.kind == "causal" else {}
    for example in examples:
        ids = torch.tensor(example.ids, device=model.device)[None]
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **extra).logits
        if logits.shape[-1] != len(model.get_output_embeddings().weight):
            raise ValueError("its logits are not what its output embedding gives")
        found.append(at_answers(logits, torch.tensor([example.answer], device=model.device), classes)[0])
    return torch.stack(found)


def _split(ids: list[int], *lengths: int) -> list[list[int]]:
    ends = np.cumsum(lengths).tolist()
    return [ids[end - length : end] for end, length in zip(ends, lengths, strict=True)]


@contextmanager
def _captured(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Within it, what a module gives is put into a list."""
    outputs: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _module, _args, output: outputs.append(output.clone()))
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def _embedded_as(module: nn.Module, vectors: Sequence[torch.Tensor]) -> Iterator[None]:
    """Within it, rows get these vectors, of B examples each (L, D), B rows after B rows; padding stays."""

    def replace(_module: nn.Module, _args, output: torch.Tensor) -> torch.Tensor:
        for row in range(len(output)):
            own = vectors[row % len(vectors)]
            output[row, : len(own)] = own
        return output

    handle = module.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
