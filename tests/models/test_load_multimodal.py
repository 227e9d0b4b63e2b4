"""Of a multimodal checkpoint the language model is loaded: its logits are those of the whole, given text alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from flaretune.errors import UserError
from flaretune.models.load import load_outline, load_pretrained
from flaretune.models.prompted import embed
from flaretune.models.verbalizer import label_word_ids
from flaretune.models.word_embeddings import read_word_embeddings
from tests.model_types_for_tests import save_model_type, save_multimodal
from tests.models.own_code import EXAMPLES, opened, tuned
from tests.tasks_for_tests import review_task

ARCHITECTURES = {
    "emu3": "Emu3ForConditionalGeneration",
    "gemma3": "Gemma3ForConditionalGeneration",
    "gemma4": "Gemma4ForConditionalGeneration",
    "llama4": "Llama4ForConditionalGeneration",
    "llava": "LlavaForConditionalGeneration",
    "mistral3": "Mistral3ForConditionalGeneration",
    "mllama": "MllamaForConditionalGeneration",
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "smolvlm": "SmolVLMForConditionalGeneration",
}


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_logits_and_word_embeddings_are_those_of_the_whole(model_type, tmp_path):
    whole = save_multimodal(model_type, ARCHITECTURES[model_type], tmp_path)
    loaded = load_pretrained(str(tmp_path), "float32", "cpu")
    assert loaded.kind == "causal"
    ids = torch.tensor([loaded.tokenizer("a funny film , it was").input_ids])
    # Llama 4's whole wants an image in transformers 5.24 (findings/transformers-llama4-needs-an-image.sh)
    reference = whole.language_model if model_type == "llama4" else whole
    with torch.no_grad():
        expected = reference(input_ids=ids).logits
        assert expected.std() > 0.1
        torch.testing.assert_close(loaded.model(input_ids=ids).logits, expected, atol=1e-4, rtol=0)
    parts = {name.split(".")[1] for name, _ in loaded.model.named_parameters()}
    assert not [part for part in parts if "vision" in part]
    outline = load_outline(str(tmp_path))
    assert {n: p.shape for n, p in outline.model.named_parameters()} == {
        n: p.shape for n, p in loaded.model.named_parameters()
    }
    read_word_embeddings(outline)
    assert torch.equal(embed(outline.model, ids), embed(loaded.model, ids))


def test_every_way_works(tmp_path):
    whole = save_multimodal("gemma3", ARCHITECTURES["gemma3"], tmp_path)
    for mode in ("suffix", "prefix"):
        prompted = opened(tmp_path, mode)
        words = label_word_ids(prompted.pretrained.tokenizer, review_task(), "causal")
        rows = [torch.tensor(prompted.plain_encoder.encode(text).ids)[None] for text in EXAMPLES.texts]
        with torch.no_grad():
            expected = [whole(input_ids=row).logits[0, -1, words].numpy() for row in rows]
        np.testing.assert_allclose(prompted.zero_shot_logits(EXAMPLES), expected, atol=1e-4)
    model = tuned(tmp_path)
    np.testing.assert_allclose(
        model.label_model.predict_logits(model.label_model.encode(EXAMPLES.texts)), expected, atol=1e-4
    )


def test_a_quantised_one_is_refused(tmp_path):
    save_multimodal("gemma3", ARCHITECTURES["gemma3"], tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "fp8"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match="quantised multimodal checkpoint"):
        load_pretrained(str(tmp_path), "float32", "cpu")


def test_one_whose_language_model_is_none_by_itself_is_refused(tmp_path):
    save_multimodal("qwen2_vl", "Qwen2VLForConditionalGeneration", tmp_path)
    with pytest.raises(UserError, match=r"no class for the language model in a Qwen2VLForConditionalGeneration alone"):
        load_pretrained(str(tmp_path), "float32", "cpu")


def test_a_decoder_under_a_name_of_its_own_is_causal(tmp_path):
    folder = save_model_type("bert-generation", "causal", tmp_path, is_decoder=True)
    assert load_pretrained(str(folder), "float32", "cpu").kind == "causal"
