from __future__ import annotations

import logging

import numpy as np
import pytest

from flaretune.models.black_box import BlackBox
from flaretune.models.soft_prompt import SoftPrompt
from tests.models.asking import TEXTS, encoded, narrowed

N_PROMPT, DIM = 3, 6
POINTS = np.random.default_rng(3).normal(size=(4, DIM))


def kind_of(mode: str) -> str:
    return "masked" if mode in ("add", "cat") else "causal"


def black_box(folder, mode: str, batch_size: int, cache_mb: float = 0) -> BlackBox:
    lm, _ = narrowed(folder, mode)
    prompt = SoftPrompt(N_PROMPT, lm.hidden_size, DIM, embedding_std=2.0, alpha=1.0, sigma0=1.0, seed=1)
    return BlackBox(lm, prompt, batch_size, cache_mb)


@pytest.mark.parametrize(
    ("family", "mode"),
    [
        ("roberta", "add"),
        ("roberta", "cat"),
        ("bert", "cat"),
        ("llama", "prefix"),
        ("llama", "suffix"),
        ("gpt2", "suffix"),
        ("gemma3", "prefix"),
        ("gemma3", "suffix"),
    ],
)
def test_many_at_once_are_as_one_by_one_and_in_their_order(tiny, family, mode):
    box = black_box(tiny(family), mode, batch_size=3, cache_mb=1)
    examples = encoded(tiny(family), kind_of(mode), mode, N_PROMPT)
    texts = box.register(examples)
    assert len(texts) == len(TEXTS)
    assert [len(batch) for batch in texts.batches] == [3, 3, 1]
    assert [cache is not None for cache in texts.caches] == [mode == "suffix"] * 3
    together = box.label_logits(POINTS, texts)
    assert together.dtype == np.float32
    assert together.shape == (4, len(TEXTS), 2)

    alone = [[box.label_logits(p[None], box.register([e], reuse=False))[0, 0] for e in examples] for p in POINTS]
    np.testing.assert_allclose(together, np.array(alone), rtol=0, atol=2e-5)
    assert np.abs(np.diff(together, axis=1)).max(axis=(0, 2)).min() > 1e-3  # texts' answers differ: order shows


def test_batches_are_sorted_by_length(tiny):
    texts = black_box(tiny("bert"), "cat", batch_size=2).register(encoded(tiny("bert"), "masked", "cat", N_PROMPT))
    lengths = [len(example.ids) for batch in texts.batches for example in batch]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_example_forwards_are_candidates_times_texts(tiny):
    box = black_box(tiny("llama"), "suffix", batch_size=4, cache_mb=1)
    texts = box.register(encoded(tiny("llama"), "causal", "suffix", N_PROMPT))
    assert box.example_forwards == 0
    box.label_logits(POINTS, texts)
    assert box.example_forwards == 4 * len(TEXTS)
    box.label_logits(POINTS[:1], texts)
    assert box.example_forwards == 5 * len(TEXTS)


def test_a_full_cache_says_so_and_computes_the_rest(tiny, caplog):
    caplog.set_level(logging.INFO)
    folder = tiny("gemma3")
    examples = encoded(folder, "causal", "suffix", N_PROMPT)
    roomy = black_box(folder, "suffix", batch_size=2, cache_mb=1)
    all_cached = roomy.register(examples)
    sizes = [cache.nbytes() for cache in all_cached.caches]
    assert len(sizes) == 4
    assert not caplog.records

    small = black_box(folder, "suffix", batch_size=2, cache_mb=(sizes[0] + sizes[1]) / 2**20)
    some_cached = small.register(examples)
    assert [cache is not None for cache in some_cached.caches] == [True, True, False, False]
    assert len(caplog.records) == 1
    assert "2 of 4 batches" in caplog.text
    assert "--cache_mb" in caplog.text
    np.testing.assert_allclose(
        small.label_logits(POINTS, some_cached), roomy.label_logits(POINTS, all_cached), rtol=0, atol=2e-5
    )


def test_texts_that_nobody_holds_give_their_memory_back(tiny):
    """Perturbed texts are registered anew every round."""
    examples = encoded(tiny("llama"), "causal", "suffix", N_PROMPT)
    size = sum(c.nbytes() for c in black_box(tiny("llama"), "suffix", 4, 1).register(examples).caches)
    box = black_box(tiny("llama"), "suffix", batch_size=4, cache_mb=1.5 * size / 2**20)
    for _ in range(3):
        texts = box.register(examples)
        assert all(cache is not None for cache in texts.caches)
        del texts
    held = box.register(examples)
    assert None in box.register(examples).caches
    assert None not in held.caches


def test_nothing_is_kept_where_it_is_not_wanted(tiny):
    examples = encoded(tiny("llama"), "causal", "suffix", N_PROMPT)
    assert black_box(tiny("llama"), "suffix", 8, cache_mb=1).register(examples, reuse=False).caches == [None]
    assert black_box(tiny("llama"), "suffix", 8, cache_mb=0).register(examples).caches == [None]
    start_token_only = encoded(tiny("llama"), "causal", "prefix", N_PROMPT)
    assert black_box(tiny("llama"), "prefix", 8, cache_mb=1).register(start_token_only).caches == [None]


def test_points_of_any_float_type(tiny):
    box = black_box(tiny("roberta"), "add", batch_size=8)
    texts = box.register(encoded(tiny("roberta"), "masked", "add", N_PROMPT))
    single = box.label_logits(POINTS.astype(np.float32), texts)
    assert np.array_equal(box.label_logits(POINTS, texts), single)
