"""Two short texts with a prompt whose logits a model's own unmodified forward code gives, from token ids alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from flaretune.data.encode import Encoded
from flaretune.data.tokens import special_ids, start_and_end_ids
from flaretune.models.label_head import at_answers
from flaretune.models.load import Pretrained
from flaretune.models.masked import embedding_layer

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
        prompt_ids: of causal models, the ids of these tokens, int64, shape (N_PROMPT,).
    """

    examples: list[Encoded]
    prompt: torch.Tensor
    whole: list[Encoded]
    own: torch.Tensor
    embedded: list[torch.Tensor] | None = None
    prompt_ids: torch.Tensor | None = None

    def in_place(self, model: nn.Module, which: Sequence[int]) -> AbstractContextManager:
        """Within it, the texts have the positions that they have behind the prompt's tokens (mode ``cat``)."""
        if self.embedded is None:
            return nullcontext()
        return _embedded_as(embedding_layer(model), [self.embedded[i] for i in which])


def make_probe(pretrained: Pretrained, mode: str, classes: np.ndarray | None = None) -> Probe:
    """Draw texts and put them through the model's own forward code.

    Args:
        mode: add, cat, prefix or suffix.

    Raises:
        Exception: whatever the model stumbles over.
    """
    model, start = pretrained.model, start_and_end_ids(pretrained.tokenizer)[0]
    whole, tokens, others = _draw(pretrained, mode)
    if pretrained.kind == "causal":
        inserts = [len(e.ids) - N_TAIL - N_PROMPT if mode == "suffix" else len(start) for e in whole]
        pairs = zip(whole, inserts, strict=True)
        examples = [_encoded(np.delete(e.ids, range(at, at + N_PROMPT)), at, e.answer - N_PROMPT) for e, at in pairs]
        with torch.inference_mode():
            ids = torch.tensor(tokens, device=pretrained.device)
            prompt = model.get_input_embeddings()(ids).float()
        return Probe(examples, prompt, whole, own_logits(pretrained, whole, classes), prompt_ids=ids)
    with _captured(embedding_layer(model)) as outputs:
        own = own_logits(pretrained, whole, classes)
        if mode == "cat":
            examples = [_encoded(e.ids[N_PROMPT:], 0, e.answer - N_PROMPT) for e in whole]
            prompt = outputs[0][0, :N_PROMPT].float()
            return Probe(examples, prompt, whole, own, [output[0, N_PROMPT:] for output in outputs])
        span = slice(len(start), len(start) + N_PROMPT)
        examples = [_encoded([*e.ids[: span.start], *others, *e.ids[span.stop :]], span.start, e.answer) for e in whole]
        own_logits(pretrained, examples[:1], classes)
    return Probe(examples, outputs[0][0, span].float() - outputs[2][0, span].float(), whole, own)


def plain_texts(pretrained: Pretrained) -> list[Encoded]:
    """Two texts of different length without a prompt."""
    return _draw(pretrained, "")[0]


def token_ids(pretrained: Pretrained) -> np.ndarray:
    """Ids of all tokens that the texts of a probe have, and special ones beside them, int64, ascending."""
    rows, tokens, others = _draw(pretrained, "")
    parts = [*(row.ids for row in rows), tokens, others, special_ids(pretrained.tokenizer), [0]]
    ids = np.unique(np.concatenate(parts)).astype(np.int64)
    return ids[ids < len(pretrained.model.get_input_embeddings().weight)]


def _draw(pretrained: Pretrained, mode: str) -> tuple[list[Encoded], list[int], list[int]]:
    """Two texts with the prompt's tokens where a mode puts the prompt; these tokens; and as many others."""
    tokenizer = pretrained.tokenizer
    start, end = start_and_end_ids(tokenizer)
    known = min(len(tokenizer), len(pretrained.model.get_input_embeddings().weight))
    pool = np.setdiff1d(np.arange(known), special_ids(tokenizer))  # `text_ids` takes long of a large vocabulary
    lengths = (N_PROMPT, N_PROMPT, N_TAIL, *LENGTHS)
    drawn = np.random.RandomState(0).choice(pool, sum(lengths), replace=len(pool) < sum(lengths))
    tokens, others, tail, *texts = [part.tolist() for part in np.split(drawn, np.cumsum(lengths)[:-1])]
    rows = []
    for text in texts:
        if pretrained.kind == "masked":
            ids = [*start, *tokens, text[0], tokenizer.mask_token_id, *text[1:], *end]
            rows.append(_encoded(ids, 0, ids.index(tokenizer.mask_token_id)))
        else:
            ids = [*start, *text, *tokens, *tail] if mode == "suffix" else [*start, *tokens, *text, *tail]
            rows.append(_encoded(ids, len(start), len(ids) - 1))
    return rows, tokens, others


def _encoded(ids: Sequence[int], insert: int, answer: int) -> Encoded:
    return Encoded(np.array(ids, dtype=np.int64), insert, answer, np.zeros(len(ids), dtype=bool))


@torch.inference_mode()
def own_logits(
    pretrained: Pretrained, examples: Sequence[Encoded], classes: np.ndarray | None, behind: bool = True
) -> torch.Tensor:
    """Logits at the answers by the model's own forward code, one text at a time, float32, shape (B, W).

    With `behind`, a token stands behind each text of a causal model, which must not matter.
    """
    model, head, found = pretrained.model, pretrained.model.get_output_embeddings(), []
    extra = {"use_cache": False} if pretrained.kind == "causal" else {}
    for example in examples:
        ids = torch.tensor(example.ids, device=pretrained.device)[None]
        if behind and pretrained.kind == "causal":
            ids = torch.cat([ids, ids[:, -1:]], dim=1)
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **extra).logits
        if logits.shape[-1] != getattr(head, "out_features", len(head.weight)):
            raise ValueError("its logits are not what its output embedding gives")
        found.append(at_answers(logits, torch.tensor([example.answer], device=pretrained.device), classes)[0])
    return torch.stack(found)


@contextmanager
def _captured(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Within it, what a module gives is put into a list."""
    outputs: list[torch.Tensor] = []

    def capture(_module: nn.Module, _args, output: torch.Tensor) -> None:
        if not isinstance(output, torch.Tensor):
            raise TypeError("its embedding layer gives more than vectors")
        outputs.append(output.clone())

    with module.register_forward_hook(capture):
        yield outputs


def _embedded_as(module: nn.Module, vectors: Sequence[torch.Tensor]) -> AbstractContextManager:
    """Within it, rows get these vectors, of B examples each (L, D), B rows after B rows; padding stays."""

    def replace(_module: nn.Module, _args, output: torch.Tensor) -> torch.Tensor:
        for row in range(len(output)):
            own = vectors[row % len(vectors)]
            output[row, : len(own)] = own
        return output

    return module.register_forward_hook(replace)
