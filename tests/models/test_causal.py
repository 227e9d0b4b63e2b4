from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from flaretune.models.prompted import embed
from tests.models.asking import TEXTS, encoded, narrowed, random_prompts
from tests.models.reference import causal_logits
from tests.models_for_tests import SLIDING_WINDOW

SLIDING = ["gemma2", "gemma3", "mistral", "gpt_oss"]
FAMILIES = ["llama", "gpt2", "opt", "falcon", *SLIDING]
N_PROMPT = 3


@pytest.fixture(scope="module")
def own_logits():
    """Of the whole model, row by row, and computed once for a mode of a family."""
    found = {}

    def logits(folder, mode, *asked):
        if (folder, mode) not in found:
            fresh = AutoModelForCausalLM.from_pretrained(folder).eval()
            found[folder, mode] = causal_logits(fresh, *asked)
        return found[folder, mode]

    return logits


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("mode", ["prefix", "suffix"])
@pytest.mark.parametrize("family", FAMILIES)
def test_label_logits_are_those_of_the_whole_model_row_by_row(tiny, own_logits, family, mode, cached):
    folder = tiny(family)
    # GPT-2 and OPT get no start token here, so an empty text leaves nothing in front of a suffix
    examples = encoded(folder, "causal", mode, N_PROMPT, (*TEXTS, ""))
    assert max(len(e.ids) for e in examples) > 3 * SLIDING_WINDOW
    lm, label_ids = narrowed(folder, mode)
    prompts = random_prompts(lm, 4, N_PROMPT)
    before = max(e.insert for e in examples)
    text = lm.cache_text(examples) if cached and before else None

    answers = lm.label_logits(prompts, examples, text)
    assert answers.dtype == torch.float32
    assert answers.shape == (4, len(examples), 2)
    expected = own_logits(folder, mode, prompts, examples, label_ids)
    np.testing.assert_allclose(answers, expected, rtol=0, atol=2e-5)
    assert answers.std(dim=0).mean() > 0.05
    assert answers.std(dim=1).mean() > 0.05


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_without_a_prompt_it_is_the_model_itself(tiny, family):
    """From token ids, so that what an embedding layer does (Gemma's scale) is the model's own."""
    examples = encoded(tiny(family), "causal", "prefix", 0)
    lm, label_ids = narrowed(tiny(family), "prefix")
    fresh = AutoModelForCausalLM.from_pretrained(tiny(family)).eval()
    expected = [fresh(input_ids=torch.tensor(e.ids)[None]).logits[0, -1, label_ids] for e in examples]
    answers = lm.label_logits(torch.zeros(1, 0, lm.hidden_size), examples)
    np.testing.assert_allclose(answers[0], torch.stack(expected), rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", SLIDING)
def test_the_sliding_window_matters_to_these_texts(tiny, family):
    """Or the comparison above would not cover it."""
    examples = encoded(tiny(family), "causal", "suffix", N_PROMPT)
    narrow, wide = tiny(family), tiny(family, sliding_window=200)
    prompts = random_prompts(narrowed(narrow, "suffix")[0], 1, N_PROMPT)
    answers = [narrowed(folder, "suffix")[0].label_logits(prompts, examples) for folder in (narrow, wide)]
    assert (answers[0] - answers[1]).abs().max() > 0.1


def test_soft_capping_reaches_the_label_words(tiny):
    lm, _ = narrowed(tiny("gemma2", final_logit_softcapping=0.5), "suffix")
    examples = encoded(tiny("gemma2"), "causal", "suffix", N_PROMPT)
    answers = lm.label_logits(random_prompts(lm, 4, N_PROMPT), examples)
    assert answers.abs().max() <= 0.5
    uncapped, _ = narrowed(tiny("gemma2", final_logit_softcapping=None), "suffix")
    raw = uncapped.label_logits(random_prompts(lm, 4, N_PROMPT), examples)
    np.testing.assert_allclose(answers, 0.5 * torch.tanh(raw / 0.5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_cache_can_be_asked_again_and_again(tiny, family):
    examples = encoded(tiny(family), "causal", "suffix", N_PROMPT)
    lm, _ = narrowed(tiny(family), "suffix")
    text, prompts = lm.cache_text(examples), random_prompts(lm, 4, N_PROMPT)
    size = text.nbytes()
    first = lm.label_logits(prompts, examples, text)
    lm.label_logits(prompts[:1] * 2, examples, text)
    assert torch.equal(lm.label_logits(prompts, examples, text), first)
    assert text.nbytes() == size


def test_size_of_a_cache(tiny):
    examples = encoded(tiny("llama"), "causal", "suffix", N_PROMPT)
    cache = narrowed(tiny("llama"), "suffix")[0].cache_text(examples)
    longest = max(len(e.ids) for e in examples) - 2  # the tail, "It was"
    layers, heads, head_size, float32 = 2, 2, 8, 4
    assert cache.attention.shape == (len(examples), longest)
    assert cache.attention.sum(dim=1).tolist() == [len(e.ids) - 2 for e in examples]
    assert cache.nbytes() == 2 * layers * len(examples) * heads * longest * head_size * float32


def test_embeddings_are_as_they_enter_the_model(tiny):
    """Gemma scales them by √D."""
    ids = torch.tensor([5, 300, 7])
    for family, scale in (("llama", 1.0), ("gemma3", np.sqrt(32))):
        model = AutoModelForCausalLM.from_pretrained(tiny(family))
        expected = model.state_dict()["model.embed_tokens.weight"][ids] * scale
        np.testing.assert_allclose(embed(model, ids), expected, rtol=1e-5)
