"""Adapters trained on the language model of a multimodal checkpoint: PEFT loads them onto the whole of it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from flaretune.methods.registry import load_classifier
from tests.adapters_for_tests import random_adapter
from tests.methods.test_predict_adapter import TEXTS, log_odds, odds_of, save
from tests.model_types_for_tests import save_multimodal
from tests.models.test_load_multimodal import ARCHITECTURES
from tests.tasks_for_tests import review_task


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("gemma3", {"first_layer": "1"}),
        *(pytest.param(model_type, {}, marks=pytest.mark.slow) for model_type in ARCHITECTURES),
    ],
)
def test_peft_alone_gives_their_logits_on_the_whole_checkpoint(tmp_path, model_type, options):
    model = tmp_path / "model"
    save_multimodal(model_type, ARCHITECTURES[model_type], model)
    folder = save(random_adapter(model, review_task(), **options), tmp_path)
    found = load_classifier(folder, dtype="float32", device="cpu").probabilities(TEXTS)

    whole = getattr(transformers, ARCHITECTURES[model_type]).from_pretrained(model, dtype=torch.float32).eval()
    # Llama 4's whole wants an image in transformers 5.24 (findings/transformers-llama4-needs-an-image.sh)
    asked = whole.language_model if model_type == "llama4" else whole
    without = log_odds(asked, model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # as PEFT warns of adapters that are missing
        tuned = PeftModel.from_pretrained(whole, folder).eval()
    expected = log_odds(asked, model)  # PEFT has put its layers into it
    assert np.abs(expected - without).max() > 0.05
    np.testing.assert_allclose(odds_of(found), expected, atol=1e-4)
    adapted = [name for name, module in tuned.named_modules() if isinstance(module, LoraLayer)]
    assert adapted
    assert not [name for name in adapted if "vision" in name]
