"""Adapters that were trained, used: logits as PEFT gives them, and models and options that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from flaretune.data.load import Examples
from flaretune.errors import UserError
from flaretune.methods.lpfl.artifact import AdapterArtifact, save_adapter
from flaretune.methods.registry import load_classifier
from tests.adapters_for_tests import random_adapter
from tests.models_for_tests import save_tiny_model
from tests.tasks_for_tests import review_task

pytestmark = pytest.mark.usefixtures("models_read_once")

TEXTS = [{"sentence": text} for text in ("a moving and funny film", "the plot is dull", "a bright , lovely cast")]


EXAMPLES = Examples(tuple(TEXTS), np.array([1, 0, 1]))


@pytest.fixture(scope="module")
def llama(tiny) -> Path:
    return tiny("llama")  # of two layers, as an adapter's arrays are named after them


@pytest.fixture(scope="module")
def roberta(tiny) -> Path:
    return tiny("roberta")


def plain_model(folder: Path) -> torch.nn.Module:
    auto_class = AutoModelForMaskedLM if folder.name.startswith("roberta") else AutoModelForCausalLM
    return auto_class.from_pretrained(folder, dtype=torch.float32).eval()


def log_odds(model: torch.nn.Module, folder: Path) -> np.ndarray:
    """How much more a model of the library's own says great than bad, for each of TEXTS, one by one."""
    tokenizer, found, is_masked = AutoTokenizer.from_pretrained(folder), [], folder.name.startswith("roberta")
    words = ("bad", "great") if is_masked else ("a bad", "a great")  # as the task writes them, behind a blank or not
    bad, great = (tokenizer.encode(word, add_special_tokens=False)[-1] for word in words)
    for columns in TEXTS:
        if is_masked:
            ids = tokenizer(f"{columns['sentence']} . It was {tokenizer.mask_token} .", return_tensors="pt").input_ids
            place = ids[0].tolist().index(tokenizer.mask_token_id)
        else:
            ids, place = tokenizer(f"{columns['sentence']} It was", return_tensors="pt").input_ids, -1
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, place]
        found.append((logits[great] - logits[bad]).item())
    return np.array(found)


def odds_of(probabilities: np.ndarray) -> np.ndarray:
    return np.log(probabilities[:, 1]) - np.log(probabilities[:, 0])


def save(artifact: AdapterArtifact, folder: Path) -> Path:
    save_adapter(artifact, folder / "best_adapter")
    return folder / "best_adapter"


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {}),
        ("gpt2", {}),
        ("roberta", {}),
        ("llama", {"subspace_dim": 5}),
        ("llama", {"subspace_dim": 9, "lora_rank": 2, "lora_alpha": 3.0}),
        ("llama", {"target_modules": "all-linear", "gradient_checkpointing": 1}),
        ("gpt2", {"target_modules": "all-linear"}),
        ("roberta", {"target_modules": "all-linear"}),
        ("roberta", {"target_modules": "key,attention.output.dense"}),
    ],
)
def test_peft_alone_gives_the_logits_of_an_adapter(tmp_path, request, family, options):
    model = request.getfixturevalue(family)
    folder = save(random_adapter(model, review_task(), **options), tmp_path)
    classifier = load_classifier(folder, dtype="float32", device="cpu")
    expected = log_odds(PeftModel.from_pretrained(plain_model(model), folder).eval(), model)
    logits = classifier.tuned.label_model.predict_logits(classifier.tuned.label_model.encode(TEXTS))
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=2e-5)
    np.testing.assert_allclose(odds_of(classifier.probabilities(TEXTS)), expected, atol=2e-5)
    without = log_odds(plain_model(model), model)
    assert np.abs(expected - without).max() > 0.05
    np.testing.assert_allclose(odds_of(classifier.zero_shot(EXAMPLES)), without, atol=2e-5)
    np.testing.assert_allclose(odds_of(classifier.probabilities(TEXTS)), expected, atol=2e-5)  # as before


@pytest.mark.parametrize("family", ["llama", "gpt2", "roberta"])
def test_a_wholly_trained_model_answers_as_one_with_these_parameters(tmp_path, request, family):
    folder = request.getfixturevalue(family)
    artifact = random_adapter(folder, review_task(), tuning="full")
    classifier = load_classifier(save(artifact, tmp_path), dtype="float32", device="cpu")
    model = plain_model(folder)
    without = log_odds(model, folder)
    state = {name: torch.from_numpy(values) for name, values in artifact.arrays.items()}
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    expected = log_odds(model, folder)
    np.testing.assert_allclose(odds_of(classifier.probabilities(TEXTS)), expected, atol=2e-5)
    assert np.abs(expected - without).max() > 0.05
    np.testing.assert_allclose(odds_of(classifier.zero_shot(EXAMPLES)), without, atol=2e-5)
    np.testing.assert_allclose(odds_of(classifier.probabilities(TEXTS)), expected, atol=2e-5)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_an_adapter_in_bfloat16_answers_nearly_as_in_float32(tmp_path, llama, tuning):
    folder = save(random_adapter(llama, review_task(), tuning=tuning), tmp_path)
    rounded, exact = (load_classifier(folder, device="cpu", dtype=dtype) for dtype in ("bfloat16", "float32"))
    difference = rounded.probabilities(TEXTS) - exact.probabilities(TEXTS)
    assert 0 < np.abs(difference).max() < 0.1
    assert exact.probabilities([]).shape == (0, 2)
    assert exact.probabilities(TEXTS).dtype == np.float64


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_an_adapter_of_another_model_is_refused(tmp_path, llama, roberta, tuning):
    folder = save(random_adapter(llama, review_task(), tuning=tuning), tmp_path)
    others = {
        "wide": save_tiny_model("llama", tmp_path / "wide", hidden_size=64),
        "deep": save_tiny_model("llama", tmp_path / "deep", num_hidden_layers=3),
        "heads": save_tiny_model("llama", tmp_path / "heads", num_key_value_heads=4),
    }
    messages = {
        roberta: rf"{roberta}: its kind is masked, but the adapter was found with {llama}, where it is causal",
        others["wide"]: rf"its hidden size is 64, but the adapter was found with {llama}, where it is 32; give that",
        others["deep"]: r"layers\.2\.\S+ is of shape \(.*\) in this model and absent in .*best_adapter; give the model",
        others[
            "heads"
        ]: r"layers\.0\.\S+ is of shape \(32, .*\) in this model and of shape \(16, .*\) in .*best_adapter",
        "/absent/model": rf"{folder}: --model_name /absent/model: there is no such folder",
    }
    for model, message in messages.items():
        with pytest.raises(UserError, match=message) as refused:
            load_classifier(folder, model_name=str(model), device="cpu")
        assert f"--model_name {model}" in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {n: v for n, v in a.items() if "layers.1.self_attn.q_proj.lora_A" not in n}, "1.*lora_A.*absent in"),
        (
            lambda a: {**a, "base_model.more": np.ones(3, np.float32)},
            r"base_model\.more is absent in this model and of",
        ),
        (lambda a: {n: v[:4] if "lora_A" in n else v for n, v in a.items()}, r"shape \(8, 32\) .* shape \(4, 32\)"),
        (lambda a: {n: v.T if "lora_B" in n else v for n, v in a.items()}, r"shape \(\d+, 8\) .* shape \(8, \d+\)"),
    ],
)
def test_an_adapter_with_other_arrays_than_its_options_give_is_refused(tmp_path, llama, change, message):
    artifact = random_adapter(llama, review_task())
    folder = save(replace(artifact, arrays=change(artifact.arrays)), tmp_path)
    with pytest.raises(UserError, match=message):
        load_classifier(folder, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_rank": None}, r"best_adapter was written by another version of flaretune \(.*lora_rank"),
        ({"lora_rank": "8"}, "best_adapter: --lora_rank '8': must be a whole number"),
        ({"lora_alpha": 0.0}, "--lora_alpha 0.0: must be above 0"),
    ],
)
def test_options_of_an_adapter_that_do_not_fit_are_refused_before_the_model_is_loaded(
    tmp_path, llama, changes, message
):
    artifact = random_adapter(llama, review_task())
    options = {k: v for k, v in {**artifact.options, **changes}.items() if v is not None}
    folder = save(replace(artifact, options=options), tmp_path)
    with pytest.raises(UserError, match=message):
        load_classifier(folder, model_name="/absent/model")


def test_target_modules_that_another_model_lacks_are_named_with_the_folder_that_wants_them(tmp_path, llama, gpt2):
    folder = save(random_adapter(llama, review_task(), target_modules="q_proj"), tmp_path)
    with pytest.raises(UserError, match=f"{folder}: --target_modules q_proj: no layer of this model has that name"):
        load_classifier(folder, model_name=str(gpt2), device="cpu")
