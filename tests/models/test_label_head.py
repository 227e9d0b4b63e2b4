from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

from flaretune.errors import UserError
from flaretune.models.label_head import LabelHead, at_answers, narrow_to_label_words, share_label_words

LABEL_IDS = np.array([41, 7, 30])
AUTO_CLASSES = {
    "roberta": AutoModelForMaskedLM,
    "bert": AutoModelForMaskedLM,
    "distilbert": AutoModelForMaskedLM,
    "llama": AutoModelForCausalLM,
    "gpt2": AutoModelForCausalLM,
    "gemma2": AutoModelForCausalLM,
    "opt": AutoModelForCausalLM,
}
IDS = torch.tensor([[3, 50, 60, 9, 11]])


def test_a_label_head_computes_in_float32_under_a_bfloat16_body():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 64, generator=generator).bfloat16()
    bias = torch.randn(2, generator=generator).bfloat16()
    hidden = torch.randn(3, 64, generator=generator).bfloat16()
    answers = LabelHead(weight, bias)(hidden)
    assert answers.dtype == torch.float32
    exact = hidden.double() @ weight.double().T + bias.double()
    np.testing.assert_allclose(answers, exact, rtol=0, atol=1e-5)
    in_bfloat16 = torch.nn.functional.linear(hidden, weight, bias)
    assert (in_bfloat16 - exact).abs().max() > 1e-3


@pytest.mark.parametrize("family", AUTO_CLASSES)
@torch.no_grad()
def test_narrowed_logits_are_columns_of_the_whole_head(tiny, family):
    model = AUTO_CLASSES[family].from_pretrained(tiny(family)).eval()
    whole = model(input_ids=IDS).logits
    narrow_to_label_words(model, LABEL_IDS, zero_bias=False)
    narrowed = model(input_ids=IDS).logits
    assert narrowed.shape == (1, 5, 3)
    np.testing.assert_allclose(narrowed, whole[..., LABEL_IDS], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["roberta", "bert", "distilbert"])
@torch.no_grad()
def test_zero_bias_takes_the_bias_off_and_nothing_else(tiny, family):
    model = AUTO_CLASSES[family].from_pretrained(tiny(family)).eval()
    whole = model(input_ids=IDS).logits
    bias = model.get_output_embeddings().bias[LABEL_IDS].clone()
    narrow_to_label_words(model, LABEL_IDS, zero_bias=True)
    np.testing.assert_allclose(model(input_ids=IDS).logits, whole[..., LABEL_IDS] - bias, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", AUTO_CLASSES)
def test_input_embeddings_that_were_tied_stay_whole(tiny, family):
    model = AUTO_CLASSES[family].from_pretrained(tiny(family))
    before = model.get_input_embeddings().weight.detach().clone()
    if family != "llama":
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    narrow_to_label_words(model, LABEL_IDS, zero_bias=True)
    with torch.no_grad():  # the narrowed head has numbers of its own
        model.get_output_embeddings().weight.zero_()
    assert torch.equal(model.get_input_embeddings().weight, before)


def test_a_model_without_a_head(tiny):
    model = AutoModel.from_pretrained(tiny("roberta"))
    with pytest.raises(UserError, match="RobertaModel has no output embedding"):
        narrow_to_label_words(model, LABEL_IDS, zero_bias=True)


def test_at_answers():
    logits = torch.arange(2 * 3 * 2).view(2, 3, 2).bfloat16()
    picked = at_answers(logits, torch.tensor([2, 0]))
    assert picked.dtype == torch.float32
    assert picked.tolist() == [[4.0, 5.0], [6.0, 7.0]]


class ScaledHead(torch.nn.Linear):
    """One that scales logits by token, as Dory's."""

    def forward(self, hidden):
        return super().forward(hidden) * torch.linspace(0.2, 4, self.out_features)


@pytest.mark.parametrize("shared", [False, True])
@torch.no_grad()
def test_a_head_that_does_more_than_its_rows(tiny, shared):
    model = AutoModelForCausalLM.from_pretrained(tiny("llama")).eval()
    head = ScaledHead(*reversed(model.lm_head.weight.shape), bias=False)
    head.weight = model.lm_head.weight
    own = model(input_ids=IDS).logits
    model.lm_head = head
    expected = (own * torch.linspace(0.2, 4, own.shape[-1]))[..., LABEL_IDS]
    if shared:
        share_label_words(model, LABEL_IDS)
    else:
        narrow_to_label_words(model, LABEL_IDS, zero_bias=False)
    np.testing.assert_allclose(model(input_ids=IDS).logits, expected, rtol=0, atol=1e-5)
