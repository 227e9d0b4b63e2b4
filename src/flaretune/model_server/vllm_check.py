"""Whether a vLLM server has the model and the tokenizer that a client has, found by texts that both can know of.

A server is asked about a text as token ids, as text, and as embeddings: where that is one and the same text to it, the
three are given the same log-probabilities.
"""

from __future__ import annotations

import io
import logging

import numpy as np
import torch

from flaretune.data.tokens import text_ids
from flaretune.errors import UserError
from flaretune.model_server.vllm import MOST_WORDS, VllmServer
from flaretune.models.load import Pretrained
from flaretune.models.word_embeddings import WordEmbeddings

log = logging.getLogger("flaretune.client")

TEXT = "This is a text of some words, with 27 numbers; it was (nearly) made up by Anna & a friend."
ROUNDING = 2e-3  # between two ways to ask in float32
COARSE_ROUNDING = 0.13  # in half precision, where logits from 16 to 32 have steps of 1/8
DIFFERENT = 0.95  # of words in float32, whose log-probabilities differ but by chance


class VllmCheck:
    """What a server says of a text, at the start and whenever it may have been replaced.

    Args:
        server: is asked, and is told to ask again.

    Attributes:
        coarse: whether logits are computed in half precision.
        dtype: bfloat16 or float32 as far as that is known, else "".

    Raises:
        UserError: the server's tokenizer is another, or what it computes in.
    """

    def __init__(self, server: VllmServer, outline: Pretrained, dtype: str):
        self._server, self._outline = server, outline
        words = text_ids(outline.tokenizer)
        spread = np.linspace(0, len(words) - 1, min(MOST_WORDS, len(words))).astype(np.int64)
        self._words = words[spread]
        self._ids: list[int] = outline.tokenizer(TEXT, verbose=False)["input_ids"]
        server.check_length(len(self._ids))
        self._known, _ = server.ask([self._ids], self._words)
        self.coarse = len(np.unique(self._known)) < DIFFERENT * len(self._words)
        if self.coarse and dtype == "float32":
            raise UserError(
                f"{server.name}: it computes in half precision ({len(np.unique(self._known))} different values of "
                f"{len(self._words)} words), and --dtype is float32; start vLLM with --dtype float32, or give "
                "--dtype auto"
            )
        self.dtype = dtype if dtype != "auto" else "" if self.coarse else "float32"
        self._check_tokenizer()
        server.recheck = self._again
        server.be_patient()

    def check_embeddings(self, embeddings: WordEmbeddings) -> None:
        """Find the number format in which embeddings are the server's own, and leave it set.

        Raises:
            UserError: there is none: the server has another model.
        """
        apart = {}
        for dtype in (torch.float32, torch.bfloat16):
            embeddings.dtype = dtype
            said, _ = self._server.ask([as_prompt(embeddings(torch.tensor(self._ids)))], self._words)
            apart[dtype] = float(np.abs(said - self._known).max())
        embeddings.dtype = min(apart, key=apart.__getitem__) if self.coarse else torch.float32
        if apart[embeddings.dtype] > self._tolerance:
            raise UserError(
                f"{self._server.name}: a text given as embeddings gets other log-probabilities than as token ids (by "
                f"up to {apart[embeddings.dtype]:.2g}): the word embeddings of --model_name {self._outline.name} are "
                f"not those of its model {self._server.model!r}; give both the same checkpoint, or use --model_server "
                "local"
            )
        if self.coarse:
            log.warning(
                "%s computes in half precision: logits of two words differ in steps, which are coarse beside what the "
                "candidates of a search differ by; with --dtype float32 vLLM computes in float32",
                self._server.name,
            )

    @property
    def _tolerance(self) -> float:
        return COARSE_ROUNDING if self.coarse else ROUNDING

    def _check_tokenizer(self) -> None:
        said, n_tokens = self._server.ask([TEXT], self._words)
        if n_tokens != len(self._ids) or np.abs(said - self._known).max() > self._tolerance:
            raise UserError(
                f"{self._server.name}: it takes {TEXT!r} for {n_tokens} tokens, and the tokenizer of --model_name "
                f"{self._outline.name} for {len(self._ids)}, or for other ones; give both the same checkpoint"
            )

    def _again(self) -> None:
        said, _ = self._server.ask([self._ids], self._words)
        if np.abs(said - self._known).max() > self._tolerance:
            raise UserError(
                f"{self._server.name}: it gives other log-probabilities than when this client started: it was started "
                "anew with another model or in another number format; start it as it was, and the job again"
            )


def as_prompt(rows: torch.Tensor) -> bytes:
    """Embeddings, shape (L, D), as vLLM takes them."""
    file = io.BytesIO()
    torch.save(rows.clone().contiguous(), file)
    return file.getvalue()
