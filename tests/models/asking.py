"""What the tests of the model classes share: texts, prompts, and a model whose head is narrowed to label words."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from flaretune.data.encode import Encoded, Encoder
from flaretune.models.causal import CausalLM
from flaretune.models.label_head import narrow_to_label_words
from flaretune.models.load import load_pretrained
from flaretune.models.masked import MaskedLM
from flaretune.models.verbalizer import label_word_ids
from tests.tasks_for_tests import review_task
from tests.tokenizers_for_tests import SENTENCES

# Of different lengths, not in their order, some longer than the Gemmas' sliding window.
TEXTS = (SENTENCES[0], "funny", " ".join(SENTENCES[:3]), "a dull film", SENTENCES[5], "bad", SENTENCES[7])


_read = functools.cache(load_pretrained)  # a copy takes a third of the time


def encoded(folder: Path, kind: str, mode: str, n_prompt: int, texts: Sequence[str] = TEXTS) -> list[Encoded]:
    tokenizer = _read(str(folder), "float32", "cpu").tokenizer
    encoder = Encoder(tokenizer, review_task(), kind, mode, n_prompt, 128)
    return [encoder.encode({"sentence": text}) for text in texts]


def narrowed(folder: Path, mode: str, zero_bias: bool = False, dtype: str = "float32"):
    """The model as the black box holds it, and the ids of its label words."""
    pretrained = copy.deepcopy(_read(str(folder), dtype, "cpu"))
    label_ids = label_word_ids(pretrained.tokenizer, review_task(), pretrained.kind)
    narrow_to_label_words(pretrained.model, label_ids, zero_bias)
    pad_id = pretrained.tokenizer.pad_token_id
    if pretrained.kind == "masked":
        return MaskedLM(pretrained.model, mode, pad_id), label_ids
    return CausalLM(pretrained.model, pad_id), label_ids


def random_prompts(lm: MaskedLM | CausalLM, n_candidates: int, n_prompt: int, scale: float = 2.0) -> torch.Tensor:
    drawn = np.random.default_rng(7).normal(size=(n_candidates, n_prompt, lm.hidden_size)) * scale
    return torch.tensor(drawn, dtype=torch.float32)
