from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

from flaretune.errors import UserError
from flaretune.models.masked import MaskedLM
from tests.model_types_for_tests import save_model_type
from tests.models.asking import encoded, narrowed, random_prompts
from tests.models.reference import masked_logits

HEAD_BIAS = {
    "roberta": "lm_head.bias",
    "bert": "cls.predictions.bias",
    "distilbert": "vocab_projector.bias",
    "albert": "predictions.bias",
}
FAMILIES = list(HEAD_BIAS)
N_PROMPT = 3


@pytest.mark.parametrize("zero_bias", [False, True])
@pytest.mark.parametrize("mode", ["add", "cat"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_label_logits_are_those_of_embeddings_encoder_and_head(tiny, family, mode, zero_bias):
    folder = tiny(family)
    examples = encoded(folder, "masked", mode, N_PROMPT)
    lm, label_ids = narrowed(folder, mode, zero_bias)
    prompts = random_prompts(lm, 4, N_PROMPT)
    fresh = AutoModelForMaskedLM.from_pretrained(folder).eval()
    bias = load_file(folder / "model.safetensors")[HEAD_BIAS[family]][label_ids]
    assert bias.abs().max() > 1e-2  # or `zero_bias` would not show
    expected = masked_logits(fresh, mode, prompts, examples, label_ids) - (bias if zero_bias else 0)

    answers = lm.label_logits(prompts, examples)
    assert answers.dtype == torch.float32
    assert answers.shape == (4, len(examples), 2)
    np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-5)
    # the comparison above means something: logits differ between prompts and between texts
    assert answers.std(dim=0).mean() > 0.05
    assert answers.std(dim=1).mean() > 0.05


@pytest.mark.parametrize("model_type", ["modernbert", "deberta", "deberta-v2", "nomic_bert", "longformer"])
@torch.no_grad()
def test_in_front_where_more_than_embeddings_goes_by_positions(model_type, tmp_path):
    """What is turned or compared by position has room for the prompt, and the text its embeddings without one."""
    folder = save_model_type(model_type, "masked", tmp_path)
    examples = encoded(folder, "masked", "cat", N_PROMPT)[:3]
    lm, label_ids = narrowed(folder, "cat")
    prompts = random_prompts(lm, 2, N_PROMPT)
    fresh = AutoModelForMaskedLM.from_pretrained(folder).eval()

    def row(prompt, example):
        ids = torch.tensor(example.ids)[None]
        embedded = fresh.base_model.embeddings(input_ids=ids)[0]
        rows = torch.cat([prompt, embedded])  # Longformer's own padding stands behind them
        handle = fresh.base_model.embeddings.register_forward_hook(
            lambda _module, _args, own: torch.cat([rows, own[0, len(rows) :]])[None]
        )
        logits = fresh(input_ids=torch.cat([ids[:, :1].repeat(1, N_PROMPT), ids], dim=1)).logits
        handle.remove()
        return logits[0, example.answer + N_PROMPT, label_ids]

    expected = torch.stack([torch.stack([row(p, e) for e in examples]) for p in prompts])
    answers = lm.label_logits(prompts, examples)
    np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-4 * expected.abs().max())
    assert answers.std(dim=0).mean() > 0.05 * expected.abs().max()


@torch.no_grad()
def test_embeddings_of_roberta_are_as_the_specification_writes_them(tiny):
    """E = LayerNorm(word + token type + position), positions counted over ids that are not padding."""
    weights = load_file(tiny("roberta") / "model.safetensors")
    part = {name.removeprefix("roberta.embeddings."): value.double().numpy() for name, value in weights.items()}
    example = encoded(tiny("roberta"), "masked", "cat", 0)[2]
    positions = 1 + np.arange(1, len(example.ids) + 1)  # behind the padding index, 1
    total = part["word_embeddings.weight"][example.ids] + part["token_type_embeddings.weight"][0]
    total += part["position_embeddings.weight"][positions]
    centred = total - total.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt(centred.var(axis=1, keepdims=True) + 1e-12)
    expected = normed * part["LayerNorm.weight"] + part["LayerNorm.bias"]
    embeddings = AutoModelForMaskedLM.from_pretrained(tiny("roberta")).eval().roberta.embeddings
    actual = embeddings(input_ids=torch.tensor(example.ids)[None])[0]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_without_a_prompt_it_is_the_model_itself(tiny, family):
    examples = encoded(tiny(family), "masked", "cat", 0)
    lm, label_ids = narrowed(tiny(family), "cat")
    fresh = AutoModelForMaskedLM.from_pretrained(tiny(family)).eval()
    expected = [fresh(input_ids=torch.tensor(e.ids)[None]).logits[0, e.answer, label_ids] for e in examples]
    answers = lm.label_logits(torch.zeros(1, 0, lm.hidden_size), examples)
    np.testing.assert_allclose(answers[0], torch.stack(expected), rtol=0, atol=1e-5)


def test_the_prompt_leaves_no_trace_in_the_model(tiny):
    """The hook on the embedding layer goes, also when the model fails."""
    lm, _ = narrowed(tiny("roberta"), "cat")
    examples = encoded(tiny("roberta"), "masked", "cat", N_PROMPT)
    none = torch.zeros(1, 0, lm.hidden_size)
    before = lm.label_logits(none, examples)
    lm.label_logits(random_prompts(lm, 2, N_PROMPT), examples)
    with pytest.raises(RuntimeError):
        lm.label_logits(torch.zeros(1, N_PROMPT, lm.hidden_size + 1), examples)
    assert torch.equal(lm.label_logits(none, examples), before)


def test_size_of_a_prompt_vector_is_that_of_the_embedding_layer(tiny):
    assert narrowed(tiny("roberta"), "add")[0].hidden_size == 32
    assert narrowed(tiny("albert"), "add")[0].hidden_size == 16  # projected to 32 behind the embedding layer


def test_tokens_of_a_row(tiny):
    add, cat = (encoded(tiny("bert"), "masked", mode, N_PROMPT)[0] for mode in ("add", "cat"))
    assert narrowed(tiny("bert"), "add")[0].row_tokens(add, N_PROMPT) == len(add.ids)
    assert narrowed(tiny("bert"), "cat")[0].row_tokens(cat, N_PROMPT) == len(cat.ids) + N_PROMPT


def test_a_model_whose_embedding_layer_is_not_found():
    model = SimpleNamespace(base_model=SimpleNamespace(), get_input_embeddings=lambda: None)
    with pytest.raises(UserError, match=r"SimpleNamespace keeps its embedding layer under a name that is not known"):
        MaskedLM(model, "add", 0)
