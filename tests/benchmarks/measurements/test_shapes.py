"""Shapes are the sizes they are called, and their examples are what an encoder would give."""

import numpy as np
import pytest
import torch
from measurements.examples import LONGEST, SHORTEST, TAIL, perturbed_examples, random_examples
from measurements.shapes import SHAPES, find_shapes
from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaForMaskedLM

from flaretune.errors import UserError


@pytest.mark.parametrize(
    ("name", "n_parameters"),
    [
        ("roberta-base", 124_697_433),  # of the published checkpoints
        ("roberta-large", 355_412_057),
        ("llama-1b", 1_235_814_400),
        ("llama", 2 * 32000 * 768 + 12 * (4 * 768**2 + 3 * 768 * 2048 + 2 * 768) + 768),
    ],
)
def test_sizes(name, n_parameters):
    shape = SHAPES[name]
    with torch.device("meta"):
        if shape.kind == "masked":
            model = RobertaForMaskedLM(RobertaConfig(**shape.options))
        else:
            model = LlamaForCausalLM(LlamaConfig(**shape.options))
    assert sum(p.numel() for p in model.parameters()) == n_parameters


def test_unknown_shapes_are_refused():
    with pytest.raises(UserError, match="shape 'bert' is unknown: use one of roberta-base, "):
        find_shapes(["llama", "bert"])


def test_masked_examples():
    for example in random_examples("masked", 50265, 40, 50, seed=3):
        ids, n = example.ids, len(example.ids)
        assert SHORTEST <= n - 1 - 50 - TAIL - 1 <= LONGEST
        assert (ids[0], ids[-1]) == (0, 2)
        assert (example.insert, example.answer) == (1, n - 2)
        assert ids[1:51].tolist() == list(range(1000, 1050))
        assert (ids == 50264).nonzero()[0].tolist() == [example.answer]
        assert example.frozen.nonzero()[0].tolist() == [*range(51), n - 2, n - 1]
        assert ids[51:-2].min() >= 4


def test_causal_examples():
    for example in random_examples("causal", 300, 40, 5, seed=3):
        n = len(example.ids)
        assert SHORTEST <= n - 1 - TAIL <= LONGEST
        assert (example.ids[0], example.insert, example.answer) == (1, n - TAIL, n - 1)
        assert example.frozen.nonzero()[0].tolist() == [0]


def test_examples_come_from_the_seed_and_have_the_lengths_of_reviews():
    first, again, other = (random_examples("causal", 32000, 2000, 5, seed) for seed in (1, 1, 2))
    assert [e.ids.tolist() for e in first] == [e.ids.tolist() for e in again]
    assert [e.ids.tolist() for e in first] != [e.ids.tolist() for e in other]
    lengths = np.array([len(e.ids) - 1 - TAIL for e in first])
    assert 23 <= np.median(lengths) <= 27
    assert (lengths.min(), lengths.max()) == (SHORTEST, LONGEST)


def test_perturbed_examples_keep_what_is_frozen():
    examples = random_examples("masked", 5000, 50, 10, seed=1)
    perturbed = perturbed_examples(examples, 5000, seed=1)
    changed = np.concatenate([a.ids != b.ids for a, b in zip(examples, perturbed, strict=True)])
    frozen = np.concatenate([e.frozen for e in examples])
    assert not changed[frozen].any()
    assert 0.4 < changed[~frozen].mean() < 0.6
