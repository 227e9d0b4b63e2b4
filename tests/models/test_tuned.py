"""The number format that a model to be trained computes in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flaretune.config.options import as_dict, build
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.models.lora import TuneSettings
from flaretune.models.tuned import open_tuned_model
from tests.tasks_for_tests import review_task

TEXTS = [{"sentence": text} for text in ("a moving and funny film", "nothing happens", "a bright cast")]


@pytest.mark.parametrize(
    ("tuning", "instructions", "computed_in", "held_in"),
    [
        ("lora", {"avx512_bf16": True}, "bfloat16", torch.bfloat16),
        ("full", {"avx512_bf16": True}, "bfloat16", torch.float32),
        ("lora", {}, "float32", torch.float32),
        ("full", {}, "float32", torch.float32),
    ],
)
def test_auto_is_what_the_processor_has_instructions_for(tiny, monkeypatch, tuning, instructions, computed_in, held_in):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    settings = build(TuneSettings, as_dict(LPFLConfig(unlabelled_path="at the client.csv", tuning=tuning)))

    def opened(dtype):
        torch.manual_seed(3)  # of the new adapter
        return open_tuned_model(review_task(), str(tiny("gpt2")), settings, dtype=dtype, device="cpu")

    def logits_of(tuned):
        return tuned.label_model.predict_logits(tuned.label_model.encode(TEXTS))

    auto, other = opened("auto"), opened({"bfloat16": "float32", "float32": "bfloat16"}[computed_in])
    assert auto.dtype == computed_in != other.dtype
    assert auto.pretrained.model.get_input_embeddings().weight.dtype == held_in
    np.testing.assert_array_equal(logits_of(auto), logits_of(opened(computed_in)))
    assert 0 < np.abs(logits_of(auto) - logits_of(other)).max() < 0.1


@pytest.mark.parametrize("family", ["roberta", "gpt2", "gemma3", "opt"])
def test_gradients_do_not_need_what_the_last_layer_makes_of_other_positions(tiny, family):
    settings = build(TuneSettings, as_dict(LPFLConfig(soft_labels="off", lora_rank=2, target_modules="all-linear")))

    def gradients(at_answers_only):
        tuned = open_tuned_model(review_task(), str(tiny(family)), settings, dtype="float32", device="cpu")
        rng = np.random.default_rng(1)
        shapes = tuned.parameters.shapes()
        tuned.parameters.load({n: rng.normal(size=s).astype(np.float32) / 5 for n, s in shapes.items()})
        if not at_answers_only:
            tuned.label_model.feed_forward = None
        loss = tuned.label_model.logits(tuned.label_model.encode(TEXTS)).square().sum()
        return torch.autograd.grad(loss, tuned.parameters.trained())

    for found, own in zip(gradients(True), gradients(False), strict=True):
        assert own.any()
        torch.testing.assert_close(found, own, rtol=1e-3, atol=1e-4)
