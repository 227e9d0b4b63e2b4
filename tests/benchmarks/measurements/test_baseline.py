"""The published code's way and ours give the same logits, in whatever way either is asked."""

import copy

import numpy as np
import pytest
import torch
from measurements.baseline import Baseline
from measurements.examples import random_examples
from measurements.random_model import black_box_of, label_word_ids, narrowed, random_model, random_prompt
from measurements.shapes import SHAPES

N_PROMPT, CPU = 4, torch.device("cpu")
POINTS = 10 * np.random.default_rng(5).standard_normal((3, 20))


@pytest.fixture(scope="module", params=["tiny-masked", "tiny-causal"])
def case(request):
    """Kind, model, prompts, examples, and the black box's answers, float32 (3, 7, 2)."""
    shape = SHAPES[request.param]
    model = random_model(shape, CPU, seed=1)
    examples = random_examples(shape.kind, model.config.vocab_size, 7, N_PROMPT, seed=2)
    prompt = random_prompt(model, N_PROMPT, 20, seed=3)
    box = black_box_of(narrowed(model, shape.kind), shape.kind, prompt, batch_size=3, cache_mb=0)
    return shape.kind, model, prompt, examples, box.label_logits(POINTS, box.register(examples))


@pytest.mark.parametrize(
    "ways", [{}, {"together": True}, {"together": True, "batch_size": 3}, {"batch_size": 2}], ids=str
)
def test_same_logits_as_the_black_box(case, ways):
    kind, model, prompt, examples, expected = case
    baseline = Baseline(model, kind, prompt, label_word_ids(model), **ways)
    found = baseline.label_logits(POINTS, baseline.register(examples))
    assert (found.shape, found.dtype) == ((3, 7, 2), np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.std(axis=0).min() > 1e-2  # the prompts matter, to every text
    assert found.std(axis=1).min() > 1e-2


def test_same_logits_with_cached_texts():
    shape = SHAPES["tiny-causal"]
    model = random_model(shape, CPU, seed=1)
    examples = random_examples("causal", 300, 7, N_PROMPT, seed=2)
    prompt, narrow = random_prompt(model, N_PROMPT, 20, seed=3), narrowed(model, "causal")
    box = black_box_of(narrow, "causal", prompt, batch_size=3, cache_mb=64)
    texts = box.register(examples)
    assert None not in texts.caches
    baseline = Baseline(model, "causal", prompt, label_word_ids(model))
    expected = baseline.label_logits(POINTS, baseline.register(examples))
    np.testing.assert_allclose(box.label_logits(POINTS, texts), expected, atol=1e-4)


def test_whole_vocabulary_is_computed_at_the_answers_only(case):
    kind, model, prompt, examples, _ = case
    model, shapes = copy.deepcopy(model), []
    model.lm_head.register_forward_hook(lambda _module, _args, logits: shapes.append(tuple(logits.shape)))
    baseline = Baseline(model, kind, prompt, label_word_ids(model))
    baseline.label_logits(POINTS, baseline.register(examples))
    assert shapes == [(7, 300)] * 3  # one candidate at a time


def test_weights_come_from_the_seed():
    shape = SHAPES["tiny-masked"]
    before = torch.random.get_rng_state()
    first, again, other = (random_model(shape, CPU, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    name = "roberta.encoder.layer.1.output.dense.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
