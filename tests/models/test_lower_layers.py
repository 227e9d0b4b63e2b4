"""Layers below the first adapter, computed once for each text: the same logits and gradients, for less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flaretune.errors import UserError
from flaretune.models import tuned as tuned_module
from flaretune.models.load import load_pretrained
from flaretune.models.lora import TuneSettings
from flaretune.models.tuned import TunedModel, open_tuned_model
from tests.model_types_for_tests import save_model_type
from tests.models.asking import TEXTS
from tests.tasks_for_tests import review_task

pytestmark = pytest.mark.usefixtures("models_read_once")

FAMILIES = ["roberta", "bert", "distilbert", "modernbert", "gpt2", "llama", "falcon", "opt", "gemma2", "gemma3"]
TYPES = ["qwen3", "phi", "gpt_neox", "qwen3_5_text", "gemma4_text", "gpt_oss", "mamba", "lfm2"]


def opened(
    folder: Path, first_layer: str = "1", cache_mb: float = 8, targets: str = "all-linear", checkpointing: int = 0
) -> TunedModel:
    """With an adapter that is no longer zero."""
    settings = TuneSettings(4, 8.0, targets, first_layer, 1, "lora", checkpointing)
    tuned = open_tuned_model(
        review_task(), str(folder), settings, dtype="float32", device="cpu", batch_size=4, cache_mb=cache_mb
    )
    rng = np.random.default_rng(2)
    shapes = tuned.parameters.shapes()
    tuned.parameters.load({n: rng.normal(size=s).astype(np.float32) / 5 for n, s in shapes.items()})
    return tuned


def texts_of(tuned: TunedModel):
    return tuned.label_model.encode([{"sentence": text} for text in TEXTS])


def gradients(tuned: TunedModel, examples) -> list[torch.Tensor]:
    """Of every number that is trained; zeros for adapters that no text reaches, as those of idle experts."""
    loss = tuned.label_model.logits(examples).square().sum()
    parameters = tuned.parameters.trained()
    return torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)


def calls_of_first_layer(tuned: TunedModel) -> list[int]:
    """Gets an entry whenever something in the model's first layer is computed."""
    calls: list[int] = []
    modules = tuned.pretrained.model.named_modules()
    part = next(m for name, m in modules if ".0." in name and getattr(m, "weight", torch.zeros(0)).dim() == 2)
    part.register_forward_hook(lambda *_: calls.append(1))
    return calls


def assert_texts_can_enter(folder: Path, targets: str = "all-linear") -> None:
    tuned, plain = (opened(folder, cache_mb=cache_mb, targets=targets) for cache_mb in (8, 0))
    examples = texts_of(tuned)
    expected = plain.label_model.predict_logits(examples)
    assert np.ptp(expected, axis=0).max() > 0.05  # or nothing would be seen here
    np.testing.assert_allclose(tuned.label_model.predict_logits(examples), expected, rtol=1e-4, atol=1e-4)
    calls = calls_of_first_layer(tuned)
    order = [3, 1, 0, 2, 6, 4, 5]  # in other company than before
    entered = tuned.label_model.predict_logits([examples[i] for i in order])
    np.testing.assert_allclose(entered, expected[order], rtol=1e-4, atol=1e-4)
    wanted = gradients(plain, examples)
    assert sum(bool(gradient.any()) for gradient in wanted) > len(wanted) / 2
    for found, own in zip(gradients(tuned, examples), wanted, strict=True):
        torch.testing.assert_close(found, own, rtol=1e-3, atol=1e-3)
    assert not calls


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_that_enter_in_the_middle_get_the_same_logits_and_gradients(tiny, family):
    assert_texts_can_enter(tiny(family))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", TYPES)
def test_those_of_more_types(tmp_path, model_type):
    assert_texts_can_enter(save_model_type(model_type, "causal", tmp_path), targets="auto")


def test_activations_that_are_computed_twice_are_the_same_ones(tiny):
    tuned, plain = opened(tiny("llama"), checkpointing=1), opened(tiny("llama"), cache_mb=0)
    examples = texts_of(tuned)
    tuned.label_model.predict_logits(examples)
    for model in (tuned, plain):
        model.label_model.train()  # only then are they
    for found, own in zip(gradients(tuned, examples), gradients(plain, examples), strict=True):
        torch.testing.assert_close(found, own, rtol=1e-3, atol=1e-3)


def test_dropout_is_at_work_above_and_not_below(tiny):
    tuned, plain = opened(tiny("roberta"), cache_mb=8), opened(tiny("roberta"), cache_mb=0)
    for model in (tuned, plain):
        examples = texts_of(model)
        model.label_model.train()
        losses = []
        for _ in range(2):
            torch.manual_seed(5)
            losses.append(model.label_model.logits(examples).detach())
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)  # what was kept, in training, is no draw of dropout
        assert not torch.allclose(losses[0], model.label_model.logits(examples), atol=1e-3)
    evaluated = [model.label_model.predict_logits(texts_of(model)) for model in (tuned, plain)]
    np.testing.assert_allclose(*evaluated, rtol=1e-4, atol=1e-4)


def test_what_memory_does_not_hold_is_computed_and_said_once(tiny, caplog):
    tuned, plain = opened(tiny("gpt2"), cache_mb=1), opened(tiny("gpt2"), cache_mb=0)
    many = tuned.label_model.encode([{"sentence": f"{text} {'funny ' * i}"} for text in TEXTS for i in range(60)])
    expected = plain.label_model.predict_logits(many)
    for _ in range(2):
        np.testing.assert_allclose(tuned.label_model.predict_logits(many), expected, rtol=1e-4, atol=1e-4)
    assert caplog.text.count("--cache_mb is full") == 1


@pytest.fixture
def reads_further_down(monkeypatch):
    """Models whose last layer adds what the first layer's feed-forward part gave in the same pass, if that ran."""

    def load(*args):
        pretrained = load_pretrained(*args)
        base, given = pretrained.model.base_model, []
        base.register_forward_pre_hook(lambda *_: given.clear())
        base.layers[0].mlp.register_forward_hook(lambda _module, _args, output: given.append(output))
        base.layers[-1].register_forward_hook(lambda _module, _args, output: output + sum(given))
        return pretrained

    monkeypatch.setattr(tuned_module, "load_pretrained", load)


def test_a_model_that_cannot_be_entered_runs_all_layers_and_says_so(tiny, reads_further_down, caplog):
    tuned = opened(tiny("llama"))
    assert "texts cannot enter LlamaForCausalLM in the middle" in caplog.text
    calls, examples = calls_of_first_layer(tuned), texts_of(tuned)
    first, again = (tuned.label_model.predict_logits(examples) for _ in range(2))
    np.testing.assert_array_equal(again, first)
    assert len(calls) == 4  # two passes of two batches


def test_what_was_not_checked_is_not_kept(tiny, caplog):
    """A cache too small for the check's texts might hold others."""
    tuned = opened(tiny("llama"), cache_mb=2**-12)
    assert "it keeps no hidden states of short texts: a larger --cache_mb may help" in caplog.text
    calls, short = calls_of_first_layer(tuned), texts_of(tuned)[1:2]
    for _ in range(2):
        tuned.label_model.predict_logits(short)
    assert len(calls) == 2


def test_auto_is_the_middle(tiny):
    shapes = {first: opened(tiny("gemma3"), first).parameters.shapes() for first in ("auto", "1", "2", "0")}
    assert shapes["auto"] == shapes["1"]
    layers = {first: {name.split(".layers.")[1][0] for name in shapes[first]} for first in shapes}
    assert layers == {"auto": {"1", "2"}, "1": {"1", "2"}, "2": {"2"}, "0": {"0", "1", "2"}}


@pytest.mark.parametrize(
    ("family", "first", "said"),
    [("llama", "2", "this model has 2 layers, 0 to 1"), ("albert", "auto", "does not have its layers in one row")],
)
def test_a_layer_that_is_not_there_is_refused(tiny, family, first, said):
    with pytest.raises(UserError, match=f"--first_layer {first}: .*{said}"):
        opened(tiny(family), first)


def test_adapters_that_peft_puts_below_it_are_refused(tmp_path):
    folder = save_model_type("qwen3_next", "causal", tmp_path)  # fused experts, for which it takes no layers
    with pytest.raises(UserError, match="PEFT puts adapters below it too"):
        opened(folder, targets="auto")
