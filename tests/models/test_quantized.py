"""`--quantize`: which weights are quantised, what the methods do with such a model, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil

import numpy as np
import pytest
import torch

from flaretune.config.options import OptionError
from flaretune.data.load import load_split
from flaretune.errors import UserError
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.fedbpt.learned_model import open_learned_model
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.methods.registry import find_method, load_saved
from flaretune.methods.verbalizer.config import VerbalizerConfig
from flaretune.methods.verbalizer.open import open_words
from flaretune.model_server.protocol import Query, black_box_content, named
from flaretune.model_server.worker import Worker
from flaretune.models.load import load_pretrained
from flaretune.models.prompted import open_prompted_model
from flaretune.models.quantized import PACKAGE
from flaretune.models.tuned import open_tuned_model
from flaretune.tasks.spec import load_task
from tests.engine.in_process import run_job
from tests.learnable import write_reviews
from tests.models.small_settings import prompt_settings, tune_settings
from tests.models_for_tests import save_tiny_model

SETTINGS = prompt_settings()
TEXTS = [{"sentence": "a fine film"}, {"sentence": "a dull and terrible film that goes on and on"}]


def way(quantize: str):
    """A parameter of tests that need its package."""
    there = importlib.util.find_spec(PACKAGE[quantize]) is not None
    return pytest.param(quantize, marks=pytest.mark.skipif(not there, reason=f"needs {PACKAGE[quantize]}"))


WAYS = [way("int8"), way("int4"), way("nf4")]
TRAINED = [way("int8"), way("nf4")]


@pytest.fixture(scope="module")
def model(tiny):
    """A tiny model of a family whose layers all have 64 inputs or a multiple, which groups of 32 and 64 divide."""
    return lambda family: str(tiny(family, std=0.1, hidden_size=64, intermediate_size=128))


@pytest.mark.parametrize("quantize", WAYS)
@pytest.mark.parametrize("family", ["roberta", "llama", "gemma3"])
def test_linear_layers_are_near_the_checkpoints_and_embeddings_are_the_same(model, family, quantize):
    whole = load_pretrained(model(family), "float32", "cpu")
    small = load_pretrained(model(family), "float32", "cpu", quantize)
    assert (whole.quantize, small.quantize, small.dtype) == ("none", quantize, "float32")
    for of in ("get_input_embeddings", "get_output_embeddings"):
        weight = getattr(small.model, of)().weight
        assert type(weight) is torch.nn.Parameter
        assert torch.equal(weight, getattr(whole.model, of)().weight)
    name = next(n for n, m in whole.model.named_modules() if type(m) is torch.nn.Linear and "layer" in n)
    there, here = (of.model.get_submodule(name) for of in (whole, small))
    rows = torch.eye(there.in_features)
    with torch.inference_mode():
        expected, found = (layer(rows) - layer(torch.zeros_like(rows)) for layer in (there, here))
    apart = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    least, most = {"int8": (1e-3, 0.02), "int4": (0.03, 0.15), "nf4": (0.03, 0.15)}[quantize]
    assert least < apart < most


@pytest.mark.parametrize("quantize", WAYS)
@pytest.mark.parametrize("family", ["roberta", "llama"])
def test_a_prompt_of_zeros_in_front_is_the_model_alone(model, family, quantize):
    """FedBPT's black box on quantised weights, with its self-check."""
    spec = load_task("sst2")
    prompted = open_prompted_model(spec, model(family), SETTINGS, dtype="float32", device="cpu", quantize=quantize)
    texts = prompted.black_box.register([prompted.encoder.encode(text) for text in TEXTS])
    logits = prompted.black_box.label_logits(np.random.RandomState(0).standard_normal((2, 10)), texts)
    assert logits.shape == (2, 2, 2)
    assert np.isfinite(logits).all()
    assert not np.allclose(logits[0], logits[1], atol=1e-4)


@pytest.mark.parametrize("quantize", WAYS)
def test_words_are_normalised_over_the_whole_vocabulary(model, quantize):
    words = open_words(load_task("sst2"), model("gemma3"), "float32", "cpu", quantize=quantize)
    every = np.arange(words.pretrained.model.config.vocab_size)
    assert np.exp(words.log_probs(TEXTS, every)).sum(axis=-1) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("quantize", WAYS)
def test_a_copy_with_another_head_shares_the_quantised_weights(model, quantize):
    opened = open_learned_model(load_task("sst2"), model("llama"), SETTINGS, "float32", "cpu", quantize=quantize)
    mine, other = (
        m.model.layers[0].mlp.up_proj.weight for m in (opened.words.pretrained.model, opened.prompted.pretrained.model)
    )
    assert mine is other


@pytest.mark.parametrize("quantize", TRAINED)
@pytest.mark.parametrize("family", ["llama", *(pytest.param(f, marks=pytest.mark.slow) for f in ("roberta", "gemma3"))])
@pytest.mark.parametrize(
    "options", [{}, {"target_modules": "all-linear", "gradient_checkpointing": 1}, {"first_layer": "1"}]
)
def test_adapters_are_float32_and_learn(model, family, quantize, options):
    tuned = open_tuned_model(
        load_task("sst2"),
        model(family),
        tune_settings(**options),
        dtype="float32",
        device="cpu",
        cache_mb=8,
        quantize=quantize,
    )
    parameters, label_model = tuned.parameters.trained(), tuned.label_model
    assert {p.dtype for p in parameters} == {torch.float32}
    if "first_layer" in options:
        assert label_model.lower.keep_states
    texts = label_model.encode(TEXTS)
    optimiser, losses = torch.optim.AdamW(parameters, lr=1e-2), []
    label_model.train()
    torch.manual_seed(0)  # of dropout
    for _ in range(16):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(label_model.logits(texts), torch.tensor([0, 1]))
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.parametrize("quantize", TRAINED)
def test_an_adapter_begins_without_a_change(model, quantize):
    tuned = open_tuned_model(
        load_task("sst2"), model("llama"), tune_settings(), dtype="float32", device="cpu", quantize=quantize
    )
    prompted = open_prompted_model(
        load_task("sst2"), model("llama"), SETTINGS, dtype="float32", device="cpu", quantize=quantize
    )
    encoded = [prompted.plain_encoder.encode(text) for text in TEXTS]
    alone = prompted.plain_black_box.label_logits(np.zeros((1, 1)), prompted.plain_black_box.register(encoded))[0]
    label_model = tuned.label_model
    assert label_model.predict_logits(label_model.encode(TEXTS)) == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("quantize", [way("int8"), way("nf4")])
def test_bfloat16_computes_and_is_checked(model, quantize):
    tuned = open_tuned_model(
        load_task("sst2"), model("llama"), tune_settings(), dtype="bfloat16", device="cpu", quantize=quantize
    )
    assert {p.dtype for p in tuned.parameters.trained()} == {torch.float32}
    words = open_words(load_task("sst2"), model("llama"), "bfloat16", "cpu", quantize=quantize)
    assert words.dtype == "bfloat16"


@pytest.mark.parametrize("quantize", ["int8", "int4", "nf4"])
def test_a_missing_package_is_named(model, quantize, monkeypatch):
    find = importlib.util.find_spec
    missing = PACKAGE[quantize]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == missing else find(name, *rest))
    with pytest.raises(UserError) as caught:
        load_pretrained(model("llama"), "float32", "cpu", quantize)
    assert str(caught.value) == (
        f'--quantize {quantize} needs the package {missing}, which is not installed: pip install "flaretune[quantize]"'
    )


@pytest.mark.parametrize("quantize", [way("int8")])
def test_layers_of_another_kind_are_refused(tiny, quantize):
    """GPT-2's are Conv1D."""
    with pytest.raises(UserError, match="GPT2LMHeadModel has no linear layer that can be quantised so"):
        load_pretrained(str(tiny("gpt2")), "float32", "cpu", quantize)


@pytest.mark.parametrize("quantize", [way("int4")])
def test_layers_that_groups_do_not_divide_stay_and_are_counted(tmp_path, quantize, caplog):
    folder = save_tiny_model("llama", tmp_path, hidden_size=64, intermediate_size=48)
    with caplog.at_level(logging.INFO):
        load_pretrained(str(folder), "float32", "cpu", quantize)
    assert "--quantize int4: 12 of 14 linear layers" in caplog.text  # down_proj has 48 inputs


def test_a_checkpoint_that_comes_quantised_is_not_quantised_again(model, tmp_path):
    folder = shutil.copytree(model("llama"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "gptq", "bits": 4}})
    )
    with pytest.raises(UserError, match=r"the checkpoint comes quantised \(gptq\); leave --quantize out"):
        load_pretrained(str(folder), "float32", "cpu", "int8")
    with pytest.raises(
        UserError, match=r"it is quantised \(gptq\): it wants the package gptqmodel and optimum, or use"
    ):
        load_pretrained(str(folder), "float32", "cpu")


@pytest.mark.parametrize(
    ("config", "options", "complaint"),
    [
        (LPFLConfig, {"quantize": "int4"}, "use --quantize nf4 (QLoRA) or int8"),
        (LPFLConfig, {"quantize": "int8", "tuning": "full"}, "quantised weights cannot be trained"),
        (LPFLConfig, {"device": "auto_map", "tuning": "full"}, "every parameter is trained on one device"),
        (FedBPTConfig, {"quantize": "int8", "model_server": "vllm+http://a:1"}, "the weights are the vLLM server's"),
        (VerbalizerConfig, {"quantize": "nf4", "model_server": "vllm+http://a:1"}, "the weights are the vLLM server's"),
        (FedBPTConfig, {"quantize": "int2"}, "must be one of none, int8, int4, nf4"),
    ],
)
def test_what_does_not_go_together(config, options, complaint):
    with pytest.raises(OptionError) as caught:
        config(**options)
    assert complaint in str(caught.value)


def test_clients_must_quantise_alike():
    for config in (FedBPTConfig, LPFLConfig, VerbalizerConfig):
        assert "quantize" not in config.client_options


def test_a_client_and_a_model_server_quantise_alike(model):
    folder, points = model("llama"), np.zeros((1, 10))
    worker = Worker(load_pretrained(folder, "float32", "cpu"), batch_size=2, cache_mb=0)
    told = {
        quantize: worker.reply(
            Query(named(black_box_content(folder, "float32", load_task("sst2"), SETTINGS, quantize)), None, points)
        )
        for quantize in ("none", "int8")
    }
    assert told["none"].status == 200
    assert told["int8"].body["error"].startswith("the model server runs --quantize none, and a client wants 'int8'")


@pytest.mark.parametrize("quantize", [way("int8"), way("nf4")])
def test_a_result_is_opened_with_the_weights_that_it_was_found_with(model, tmp_path, quantize):
    data = write_reviews(tmp_path / "data", n_train=40, n_test=10)
    options = {"model_name": model("roberta"), "dataset": str(data), "dtype": "float32", "k_shot": 8}
    config = VerbalizerConfig(**options, n_words=4, quantize=quantize)
    run_job(find_method("verbalizer"), dict.fromkeys(["site-1", "site-2"], config), tmp_path / "results")
    saved = load_saved(tmp_path / "results" / "best_verbalizer.safetensors")
    opened = saved.open(None, "float32", "cpu")
    assert opened.words.pretrained.quantize == quantize
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())
    test = load_split(load_task("sst2"), "test", str(data))
    best = next(r for r in summary["rounds"] if r["round"] == summary["best_round"])
    right = float((opened.probabilities(test.texts).argmax(axis=1) == test.labels).mean())
    assert right == pytest.approx(best["accuracy"])
