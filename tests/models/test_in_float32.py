"""A model in bfloat16 computes in float32 for a while, and has what it had afterwards."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from flaretune.models.in_float32 import in_float32
from flaretune.models.label_head import narrow_to_label_words

AUTO_CLASSES = {
    "roberta": AutoModelForMaskedLM,
    "llama": AutoModelForCausalLM,
    "gemma2": AutoModelForCausalLM,  # its head is its word embeddings
    "gpt2": AutoModelForCausalLM,
}
IDS = np.array([3, 9, 11, 50, 60])
OTHERS = torch.tensor([[4, 5]])


def model_of(tiny, family: str, label_ids: list[int] | None) -> torch.nn.Module:
    model = AUTO_CLASSES[family].from_pretrained(tiny(family), dtype=torch.bfloat16).eval()
    if label_ids:
        narrow_to_label_words(model, np.array(label_ids), zero_bias=False)
    return model


@pytest.mark.parametrize("label_ids", [None, [41, 7, 30]], ids=["whole head", "label words"])
@pytest.mark.parametrize("family", AUTO_CLASSES)
@torch.inference_mode()
def test_logits_of_these_tokens_are_those_of_a_float32_copy(tiny, family, label_ids):
    model, ids = model_of(tiny, family, label_ids), torch.from_numpy(IDS)[None]
    expected, before = copy.deepcopy(model).float()(input_ids=ids).logits, model(input_ids=ids).logits
    with in_float32(model, IDS) as changed:
        assert changed
        np.testing.assert_array_equal(model(input_ids=ids).logits, expected)
    after = model(input_ids=ids).logits
    assert torch.equal(after, before)
    assert not np.allclose(before.float(), expected, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_a_table_that_is_only_looked_up_has_no_other_rows(tiny):
    model = model_of(tiny, "gemma2", [41, 7, 30])
    embed = model.get_input_embeddings()
    whole = embed(OTHERS)
    with in_float32(model, IDS):
        assert not embed(OTHERS).any()
        assert embed(torch.from_numpy(IDS)).any(dim=-1).all()
    assert torch.equal(embed(OTHERS), whole)
    assert whole.any()


@torch.inference_mode()
def test_a_table_that_is_the_head_too_stays_whole(tiny):
    model = model_of(tiny, "gemma2", None)
    expected = model.get_input_embeddings().weight.float()
    with in_float32(model, IDS):
        assert torch.equal(model.get_input_embeddings().weight, expected)
