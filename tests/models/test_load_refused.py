"""Models that cannot be used are refused with one line that says why."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from flaretune.errors import UserError
from flaretune.models.load import load_pretrained


def change_config(folder, **changes):
    """Set entries of config.json; None takes one out."""
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in {**config, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


def complaint(name, dtype="float32", device="cpu") -> str:
    """The message about a model that cannot be used: one line that names it."""
    with pytest.raises(UserError) as caught:
        load_pretrained(str(name), dtype, device)
    message = str(caught.value)
    assert message.startswith(f"--model_name {name}: ")
    assert "\n" not in message
    assert len(message) < len(str(name)) * 3 + 400
    return message.removeprefix(f"--model_name {name}: ")


def test_no_such_folder(tmp_path):
    assert complaint(tmp_path / "absent") == "there is no such folder; give a folder or a hub id"
    assert complaint("./absent") == "there is no such folder; give a folder or a hub id"


def test_a_file(tiny):
    assert complaint(tiny("bert") / "config.json") == "this is a file; give the folder that it lies in"


def test_a_folder_without_a_model(tmp_path):
    assert "holds no config.json; give the folder that a model was saved in" in complaint(tmp_path)


def test_a_hub_id_that_cannot_be_reached(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    message = complaint("flaretune-tests/no-such-model")
    assert message.startswith("no folder here, and not to be had from the model hub (")
    assert message.endswith("); check the name and the connection")


def test_a_name_that_is_no_hub_id():
    assert "no folder here, and not to be had from the model hub" in complaint("my model!")


def test_no_weights(checkpoint):
    message = complaint(checkpoint("roberta", "model.safetensors"))
    assert message.startswith("its weights could not be loaded (")
    assert message.endswith("; make sure that model.safetensors is there and whole")


@pytest.mark.parametrize("keep", [0, 100, -1000])
def test_weights_cut_short(checkpoint, keep):
    folder = checkpoint("roberta")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:keep])
    assert "make sure that model.safetensors is there and whole" in complaint(folder)


def test_a_git_lfs_pointer_in_place_of_weights(checkpoint):
    folder = checkpoint("llama")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "make sure that model.safetensors is there and whole" in complaint(folder)


@pytest.mark.parametrize(
    ("library", "package", "more"),
    [
        ("quanto", "optimum-quanto", {}),
        ("hqq", "hqq", {}),
        ("gptq", "gptqmodel and optimum", {"bits": 4}),
        ("gptq", "gptqmodel and optimum", {}),
        ("awq", "gptqmodel", {"bits": 4}),
    ],
)
def test_a_quantised_checkpoint_without_what_reads_it(checkpoint, library, package, more):
    folder = checkpoint("llama")
    change_config(folder, quantization_config={"quant_method": library, **more})
    message = complaint(folder)
    assert message.startswith("its weights could not be loaded (")
    assert message.endswith(
        f"; it is quantised ({library}): it wants the package {package}, or use the model as it was before"
    )


def test_quantised_weights_that_transformers_does_not_know(checkpoint):
    folder = checkpoint("llama")
    weights = load_file(folder / "model.safetensors")
    packed = {name.replace("q_proj.weight", "q_proj.qweight"): array for name, array in weights.items()}
    save_file(packed, folder / "model.safetensors", {"format": "pt"})
    change_config(folder, quantization_config={"quant_method": "wonder"})
    assert complaint(folder).endswith(
        "q_proj.weight, which would be drawn at random; it is quantised (wonder): install what that needs, or use the "
        "model as it was before"
    )


@pytest.mark.parametrize("without", [("tokenizer.json",), ("tokenizer*.json",)])
@pytest.mark.parametrize("family", ["roberta", "bert", "llama", "gpt2", "gemma3"])
def test_no_tokenizer(checkpoint, family, without):
    """transformers makes an empty tokenizer of most families without a word."""
    message = complaint(checkpoint(family, *without))
    assert "tokenizer" in message
    assert message.endswith("; give a folder or hub id with the model's own tokenizer.json")


@pytest.mark.parametrize("content", ["{nonsense", "{}", '{"version": "1.0", "model": {"type": "BPE"}}'])
def test_a_damaged_tokenizer(checkpoint, content):
    folder = checkpoint("roberta")
    (folder / "tokenizer.json").write_text(content)
    assert complaint(folder).startswith("its tokenizer could not be loaded (")


@pytest.mark.parametrize("n_more", [1, 10])
def test_the_tokenizer_of_another_model(checkpoint, tiny, n_more):
    folder = checkpoint("roberta")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("roberta"))
    rows = len(tokenizer)
    tokenizer.add_tokens([f"new{i}" for i in range(n_more)])
    tokenizer.save_pretrained(folder)
    expected = f"its tokenizer has token ids up to {rows + n_more - 1}, but the model embeds only {rows} tokens; "
    assert complaint(folder).startswith(expected)


def test_a_special_token_beyond_the_embeddings_is_no_reason(checkpoint):
    """Gemma 3's text models are published with a tokenizer that has one token, for images, too many."""
    folder = checkpoint("gemma3")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(folder)
    assert len(load_pretrained(str(folder), "float32", "cpu").tokenizer) == len(tokenizer)


@pytest.mark.parametrize("content", ["{nonsense", "{}", '{"model_type": "wonder"}'])
def test_a_configuration_that_is_none(checkpoint, content):
    folder = checkpoint("roberta")
    (folder / "config.json").write_text(content)
    assert complaint(folder).startswith("its config.json is of no model that can be loaded (")


def test_a_model_that_brings_its_own_code(checkpoint, monkeypatch):
    """It must not ask at the terminal whether to run it."""
    folder = checkpoint("roberta")
    change_config(folder, model_type="own", auto_map={"AutoConfig": "code.Config", "AutoModelForMaskedLM": "code.M"})
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at the terminal"))
    assert "without code of the model's own" in complaint(folder)


@pytest.mark.parametrize("architectures", [["RobertaModel"], ["RobertaForSequenceClassification"], None])
def test_another_architecture(checkpoint, architectures):
    folder = checkpoint("roberta")
    change_config(folder, architectures=architectures)
    message = complaint(folder)
    assert (architectures or ["not stated in config.json"])[0] in message
    assert "a masked (…ForMaskedLM) or a causal (…ForCausalLM) language model is needed" in message


def test_a_classifier(tiny, checkpoint):
    folder = checkpoint("bert")
    AutoModelForSequenceClassification.from_pretrained(tiny("bert")).save_pretrained(folder)
    assert "its architecture is BertForSequenceClassification" in complaint(folder)


@pytest.mark.parametrize("family", ["roberta", "bert", "distilbert"])
def test_no_language_model_head_is_drawn_at_random(tiny, checkpoint, family):
    folder = checkpoint(family)
    whole = AutoModelForMaskedLM.from_pretrained(tiny(family))
    whole.base_model.save_pretrained(folder)
    change_config(folder, architectures=[type(whole).__name__])
    message = complaint(folder)
    assert message.startswith("the checkpoint lacks ")
    assert " and " in message
    assert message.endswith("drawn at random; use one that was saved with its language-model head")


def test_no_untied_head_is_drawn_at_random(checkpoint, tiny):
    folder = checkpoint("llama")
    AutoModelForCausalLM.from_pretrained(tiny("llama")).base_model.save_pretrained(folder)
    change_config(folder, architectures=["LlamaForCausalLM"])
    assert complaint(folder).startswith("the checkpoint lacks lm_head.weight, which would be drawn at random")


def test_a_tied_head_need_not_be_in_the_checkpoint(checkpoint, tiny):
    folder = checkpoint("gpt2")
    AutoModelForCausalLM.from_pretrained(tiny("gpt2")).base_model.save_pretrained(folder)
    change_config(folder, architectures=["GPT2LMHeadModel"])
    whole = load_file(tiny("gpt2") / "model.safetensors")["transformer.wte.weight"]
    assert torch.equal(load_pretrained(str(folder), "float32", "cpu").model.lm_head.weight, whole)


def test_weights_of_another_shape(checkpoint):
    folder = checkpoint("roberta")
    change_config(folder, intermediate_size=40)
    message = complaint(folder)
    assert message.startswith("the checkpoint holds roberta.encoder.layer.0.intermediate.dense.bias, ")
    assert "and 3 more in another shape than config.json says" in message


def test_a_number_format_that_is_not_there(tiny):
    with pytest.raises(UserError, match=r"^--dtype float16: must be one of auto, bfloat16, float32$"):
        load_pretrained(str(tiny("gpt2")), "float16", "cpu")
