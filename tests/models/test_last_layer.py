"""The last feed-forward part at the answers alone: the same answers, for less."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from flaretune.models.last_layer import last_feed_forward, only_at

KINDS = {"roberta": AutoModelForMaskedLM, "llama": AutoModelForCausalLM, "gemma3": AutoModelForCausalLM}
KINDS |= {"gpt2": AutoModelForCausalLM}


@pytest.mark.parametrize("family", KINDS)
def test_one_position_of_each_row_is_computed_and_is_as_it_was(tiny, family):
    model = KINDS[family].from_pretrained(tiny(family)).eval()
    part = last_feed_forward(model)
    computed = []
    part.register_forward_hook(lambda module, args, output: computed.append(args[0].shape[:2]))
    ids = torch.from_numpy(np.random.default_rng(3).integers(5, 50, size=(4, 9)))
    positions = torch.tensor([8, 0, 3, 5])
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        with only_at(part, positions):
            found = model(input_ids=ids).logits
        assert torch.equal(model(input_ids=ids).logits, expected)  # which is over
    rows = torch.arange(4)
    torch.testing.assert_close(found[rows, positions], expected[rows, positions], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, expected, atol=1e-4)  # elsewhere it is another number
    assert computed == [(4, 9), (4, 1), (4, 9)]


def test_a_model_that_is_not_known_is_left_as_it_is():
    model = torch.nn.Linear(2, 2)
    model.base_model = model
    assert last_feed_forward(model) is None
    with only_at(None, torch.tensor([0])):
        assert model(torch.ones(1, 2)).shape == (1, 2)


def test_rows_that_a_model_has_packed_are_all_computed():
    part = torch.nn.Linear(2, 2)
    with only_at(part, torch.tensor([0, 1])):
        assert part(torch.ones(7, 2)).shape == (7, 2)
