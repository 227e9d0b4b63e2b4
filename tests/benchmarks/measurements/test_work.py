"""Tokens and operations against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from measurements.baseline import Baseline
from measurements.examples import random_examples
from measurements.random_model import black_box_of, label_word_ids, narrowed, random_prompt
from measurements.work import Counting, Work, tokens_computed
from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaForMaskedLM

from flaretune.data.encode import Encoded

TOY = {"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50}


def example(n: int, insert: int) -> Encoded:
    return Encoded(np.arange(n), insert, n - 1, np.zeros(n, dtype=bool))


def llama(**more):
    return LlamaForCausalLM(LlamaConfig(**TOY, num_key_value_heads=1, **more)).eval()


def roberta():
    return RobertaForMaskedLM(RobertaConfig(**TOY, max_position_embeddings=140)).eval()


def test_causal_model():
    counting = Counting(llama(), "causal")
    # a layer: query and output 8 × 8, key and value 8 × 4, three of 8 × 16
    assert counting.matrix_entries == 2 * (2 * 64 + 2 * 32 + 3 * 128)
    # 6 + 2 tokens that see 1 + 2 + … + 8 = 36; 4 operations · 2 layers · 2 heads · size 4 for each pair
    whole = counting.generation([example(6, 4)], n_prompt=2, n_candidates=1, cached=False)
    assert whole == Work(8, 2 * 1152 * 8 + 64 * 36)
    # without the four in front: tokens that see 5, 6, 7, 8
    behind = counting.generation([example(6, 4)], n_prompt=2, n_candidates=1, cached=True)
    assert behind == Work(4, 2 * 1152 * 4 + 64 * 26)
    assert behind + counting.text_in_front([example(6, 4)]) == whole
    twice = counting.generation([example(6, 4), example(3, 1)], n_prompt=2, n_candidates=3, cached=False)
    assert twice == Work(3 * (8 + 5), 3 * (2 * 1152 * (8 + 5) + 64 * (36 + 15)))


def test_masked_model():
    counting = Counting(roberta(), "masked")
    assert counting.matrix_entries == 2 * (4 * 64 + 2 * 128)
    # placeholders are among the six; each token sees all of them
    work = counting.generation([example(6, 1)], n_prompt=2, n_candidates=5, cached=False)
    assert work == Work(5 * 6, 5 * (2 * 1024 * 6 + 64 * 36))


def test_heads_of_another_size():
    assert Counting(llama(head_dim=16), "causal").generation([example(1, 1)], 0, 1, False).flops == (
        2 * 2 * (2 * 8 * 32 + 2 * 8 * 16 + 3 * 128) + 4 * 2 * 2 * 16
    )


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_tokens_that_are_computed(kind):
    model = roberta() if kind == "masked" else llama()
    examples, room = random_examples(kind, 50, 5, 3, seed=1), 3 if kind == "causal" else 0
    lengths = np.array([len(e.ids) + room for e in examples])
    prompt, points = random_prompt(model, 3, 4, seed=1), np.ones((2, 4))

    def count(box, asked) -> int:
        return tokens_computed(asked, lambda: box.label_logits(points, box.register(examples)))

    baseline = Baseline(model, kind, prompt, label_word_ids(model))
    assert count(baseline, model) == 2 * 5 * lengths.max()
    lengths.sort()
    in_batches = 2 * (2 * lengths[1] + 2 * lengths[3] + lengths[4])
    sorted_baseline = Baseline(model, kind, prompt, label_word_ids(model), together=True, batch_size=2)
    assert count(sorted_baseline, model) == in_batches
    narrow = narrowed(model, kind)
    assert count(black_box_of(narrow, kind, prompt, 1, 0), narrow) == 2 * lengths.sum()


def test_nothing_is_counted_afterwards():
    model, counted = llama(), []
    with torch.inference_mode():
        n = tokens_computed(model, lambda: counted.append(model(input_ids=torch.ones(2, 3, dtype=torch.int64))))
        model(input_ids=torch.ones(2, 3, dtype=torch.int64))
    assert n == 6
    assert not any(module._forward_pre_hooks for module in model.modules())
