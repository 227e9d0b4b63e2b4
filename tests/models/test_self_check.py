"""Models are right in every mode, or refused in one sentence: never wrong in silence.

What is right is computed here by the model's own code from token ids, one text at a time, without what is tested.
"""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from flaretune.errors import UserError
from flaretune.models.lanes import share_weights
from flaretune.models.load import load_pretrained
from flaretune.models.prompted import prompt_model
from tests.model_types_for_tests import save_model_type
from tests.models.own_code import (
    EXAMPLES,
    MODES,
    check_prompted,
    check_tuned,
    check_words,
    opened,
    opened_words,
    settings,
    tuned,
)
from tests.tasks_for_tests import review_task

CAUSAL = ("gpt2", "llama", "gemma3_text")
MASKED = ("bert", "roberta")
MORE_CAUSAL = (
    *("gemma3n_text", "qwen3", "falcon_h1"),
    *("bloom", "codegen", "cohere", "falcon", "gemma", "gemma2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss"),
    *("gptj", "granite", "lfm2", "mamba", "mamba2", "mixtral", "olmo2", "opt", "phi", "phi3", "phimoe", "qwen2"),
    *("mistral", "qwen3_next", "smollm3", "stablelm", "starcoder2", "llama4_text", "gemma4_text", "deepseek_v3"),
)
MORE_MASKED = (
    "eurobert",
    "albert",
    "camembert",
    "distilbert",
    "electra",
    "ernie",
    "layoutlm",
    "longformer",
    "mpnet",
    "nomic_bert",
    "roberta-prelayernorm",
    "xlm-roberta",
)


@pytest.fixture(scope="module")
def model_type(tmp_path_factory):
    """``model_type(name, kind)`` is the folder of a tiny model of a type, saved once."""
    saved = {}

    def folder(name, kind, **overrides):
        key = (name, kind, *overrides.items())
        if key not in saved:
            saved[key] = save_model_type(name, kind, tmp_path_factory.mktemp(name), **overrides)
        return saved[key]

    return folder


def complaint(open_model, *args, **options):
    with pytest.raises(UserError) as caught:
        open_model(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message.split(": ", 1)[1]


# Right ones


@pytest.mark.parametrize(("name", "kind"), [(n, "causal") for n in CAUSAL] + [(n, "masked") for n in MASKED])
def test_right_in_every_mode(name, kind, model_type):
    folder = model_type(name, kind)
    for mode in MODES[kind]:
        check_prompted(folder, kind, mode)
    for tuning in ("lora", "full"):
        check_tuned(folder, kind, tuning)
    check_words(folder, kind)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [(n, "causal") for n in MORE_CAUSAL] + [(n, "masked") for n in MORE_MASKED])
def test_more_types_are_right_in_every_mode(name, kind, model_type):
    test_right_in_every_mode(name, kind, model_type)


@pytest.mark.parametrize(("name", "mode"), [("qwen3", "suffix"), ("gemma3_text", "prefix"), ("roberta", "cat")])
def test_right_in_bfloat16_and_left_as_it_was(name, mode, model_type):
    kind = "masked" if mode == "cat" else "causal"
    folder = model_type(name, kind)
    prompted = opened(folder, mode, dtype="bfloat16")
    before = load_pretrained(str(folder), "bfloat16", "cpu").model.state_dict()
    after = prompted.pretrained.model.state_dict()
    shared = [key for key in before if key in after and before[key].shape == after[key].shape]
    assert len(shared) > 10
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in shared)


@pytest.mark.parametrize("name", ["mamba", "mamba2", "lfm2"])
def test_a_model_that_keeps_no_keys_computes_texts_every_time(name, model_type, caplog):
    with caplog.at_level(logging.WARNING):
        prompted = opened(model_type(name, "causal"), "suffix")
    (record,) = [record for record in caplog.records if "cached texts" in record.message]
    assert record.message.endswith("every text is computed for every prompt, as with --cache_mb 0")
    assert set(prompted.register(EXAMPLES).caches) == {None}
    check_prompted(model_type(name, "causal"), "causal", "suffix")


def test_no_word_of_the_cache_where_none_is_wanted(model_type, caplog):
    opened(model_type("mamba2", "causal"), "suffix", cache_mb=0)
    assert not [record for record in caplog.records if record.name.startswith("flaretune")]


@pytest.mark.parametrize("name", ["mamba2", "falcon_h1", "phimoe"])
def test_lora_auto_leaves_out_what_it_cannot_be_put_on(name, model_type):
    check_tuned(model_type(name, "causal"), "causal", "lora")


@pytest.mark.parametrize("name", ["mllama", "git"])
def test_lora_auto_leaves_out_what_text_never_reaches(name, model_type):
    """Attention to images and their encoder; what is left moves when it is trained."""
    model = tuned(model_type(name, "causal"))
    drawn = np.random.default_rng(0)
    shapes = model.parameters.shapes()
    model.parameters.load({n: drawn.normal(size=shape).astype(np.float32) / 8 for n, shape in shapes.items()})
    model.label_model.logits(model.label_model.encode(EXAMPLES.texts)).square().sum().backward()
    assert len(shapes) >= 16
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters.trained())


# Wrong ones

AS_PROMPT = r"gives other logits for tokens whose embeddings are the prompt than for these tokens themselves"
BESIDE = r"gives other logits for a text beside a longer one than for it alone"


def test_embeddings_that_are_not_what_the_model_makes_of_tokens(model_type):
    folder = model_type("roberta", "causal", is_decoder=True)
    for mode, dtype in zip(MODES["causal"], ("float32", "bfloat16"), strict=True):
        message = complaint(opened, folder, mode, dtype=dtype)
        assert message.endswith(f"CausalLM {AS_PROMPT} (mode {mode!r}); use another model")


@pytest.mark.parametrize("name", ["roberta", "bert"])
def test_a_model_that_is_not_causal(name, model_type):
    message = complaint(opened, model_type(name, "causal"), "suffix")
    assert "is no causal language model as it is configured: tokens change the logits of those in front" in message


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_one_class_for_both_kinds(kind, model_type):
    assert load_pretrained(str(model_type("xlm", kind)), "float32", "cpu").kind == kind


@pytest.mark.slow
def test_a_model_without_a_table_of_words(model_type):
    assert "has no table of word embeddings" in complaint(opened, model_type("perceiver", "masked"), "add")


@pytest.mark.parametrize("name", ["rwkv", "bart"])
def test_cached_texts_whose_padding_in_front_is_seen(name, model_type, caplog):
    folder = model_type(name, "causal")
    with caplog.at_level(logging.WARNING):
        prompted = opened(folder, "suffix")
    assert "cannot be used with cached texts (other logits come out with it)" in caplog.text
    assert set(prompted.register(EXAMPLES).caches) == {None}
    for mode in MODES["causal"]:
        check_prompted(folder, "causal", mode)


@pytest.mark.parametrize("name", ["fnet", "convbert", "yoso"])
def test_padding_behind_that_is_seen(name, model_type):
    folder = model_type(name, "masked")
    for mode in MODES["masked"]:
        assert BESIDE in complaint(opened, folder, mode)
    assert BESIDE in complaint(tuned, folder)
    assert BESIDE in complaint(opened_words, folder, "masked")


@pytest.mark.parametrize("name", ["fnet"])
def test_a_text_at_a_time_helps(name, model_type):
    folder = model_type(name, "masked")
    assert complaint(opened, folder, "add").endswith("(mode 'add'); use --batch_size 1 or another model")
    check_tuned(folder, "masked", "lora", batch_size=1)
    opened(folder, "add", batch_size=1)


def test_arrays_that_do_not_arrive(model_type):
    folder = model_type("laguna", "causal")
    message = complaint(tuned, folder)
    assert "does not take up 6 of the 32 arrays of its adapter that are averaged" in message
    assert message.endswith("name the layers to adapt by --target_modules, or use another model")
    assert len(tuned(folder, targets="q_proj,v_proj").parameters.arrays()) == 8


def test_a_dtype_that_helps(model_type):
    folder = model_type("deberta", "masked")
    message = complaint(opened, folder, "add", dtype="bfloat16")
    assert message.endswith("(mode 'add'); use --dtype float32 or another model")
    check_prompted(folder, "masked", "add")


def test_a_mode_that_a_model_stumbles_over(model_type):
    message = complaint(opened, model_type("ibert", "masked"), "cat")
    assert "ForMaskedLM fails (" in message


def test_weights_that_give_no_numbers(tiny, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"))
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.fill_(float("nan"))
    model.save_pretrained(tmp_path)
    load_pretrained(str(tiny("llama")), "float32", "cpu").tokenizer.save_pretrained(tmp_path)
    assert "gives logits that are not finite" in complaint(opened, tmp_path, "prefix")
    assert "gives logits that are not finite" in complaint(tuned, tmp_path)


def test_weights_that_see_no_text(tiny, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.1)
    model.save_pretrained(tmp_path)
    load_pretrained(str(tiny("llama")), "float32", "cpu").tokenizer.save_pretrained(tmp_path)
    for open_model, options in ((opened, {"mode": "prefix"}), (tuned, {})):
        assert "gives the same logits for different texts" in complaint(open_model, tmp_path, **options)


def test_what_is_rounding_in_bfloat16_is_said_and_not_refused(tiny, monkeypatch, caplog):
    """Of a model that rounds otherwise by the number of texts; how much real ones do so depends on the processor."""
    exact = LlamaRMSNorm.forward

    def coarse(self, hidden):
        normed = exact(self, hidden)
        noise = torch.randn(normed.shape, generator=torch.Generator().manual_seed(len(normed)))
        return normed + noise.to(normed) if normed.dtype == torch.bfloat16 else normed

    monkeypatch.setattr(LlamaRMSNorm, "forward", coarse)
    tuned(tiny("llama"), dtype="bfloat16")
    (record,) = [record for record in caplog.records if record.name.startswith("flaretune")]
    assert record.message.endswith("--dtype float32 is exact")
    caplog.clear()
    tuned(tiny("llama"))
    assert not caplog.records


# What it costs


def test_done_once_for_the_same_weights_and_settings(tiny):
    pretrained = load_pretrained(str(tiny("llama")), "float32", "cpu")
    passes = []
    for mode in ("suffix", "suffix", "prefix"):
        shared = share_weights(pretrained)
        handle = shared.model.register_forward_pre_hook(lambda *_: passes.append(mode))  # noqa: B023
        prompt_model(shared, review_task(), settings(mode), 0, 16)
        handle.remove()
    assert passes.count("suffix") <= 8
    assert 0 < passes.count("prefix") <= 3
    before = len(passes)
    again = share_weights(pretrained)
    again.model.register_forward_pre_hook(lambda *_: passes.append("again"))
    prompt_model(again, review_task(), settings("prefix"), 0, 16)
    assert len(passes) == before


def test_nothing_of_it_is_left(tiny, model_type):
    pretrained = load_pretrained(str(model_type("yoso", "masked")), "float32", "cpu")  # draws numbers
    state = torch.get_rng_state()
    prompt_model(pretrained, review_task(), settings("add"), batch_size=1)
    assert torch.equal(torch.get_rng_state(), state)
    model = tuned(tiny("gpt2"))
    assert model.label_model.example_forwards == 0
    arrays = model.parameters.arrays()
    assert all(np.array_equal(values, model.initial[name]) for name, values in arrays.items())
