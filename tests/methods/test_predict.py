"""Prompts that were found, used: answers, scores, and models and options that do not fit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from flaretune.data.load import load_file
from flaretune.errors import UserError
from flaretune.methods.artifact_parts import told_parts
from flaretune.methods.base import ClientContext
from flaretune.methods.classifier import score
from flaretune.methods.fedbpt.artifact import PromptArtifact, load_prompt, save_prompt
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.fedbpt.open import open_client
from flaretune.methods.registry import load_classifier
from flaretune.seeding import derive_seed
from tests.learnable import write_reviews
from tests.models_for_tests import save_tiny_model

pytestmark = pytest.mark.usefixtures("models_read_once")

DIM = 12
CLIENTS = ["a", "b"]
TEXTS = [{"sentence": text} for text in ("a moving and funny film", "the plot is dull", "a bright , lovely cast")]


def save_found_prompt(folder: Path, model: Path, data: Path, **options) -> tuple[Path, list]:
    """What a job with two clients would save for some search point, and these clients."""
    config = FedBPTConfig(
        model_name=str(model), dataset=str(data), dtype="float32", k_shot=4, intrinsic_dim=DIM, eval_clients="all",
        **{"n_prompt_tokens": 3, "seed": 5, "alpha": 2.0, "sigma": 0.5, **options},
    )  # fmt: skip
    clients = [open_client(config, ClientContext(name, CLIENTS, folder / name)) for name in CLIENTS]
    settings = clients[0].initialize().settings
    point = np.random.default_rng(1).standard_normal(DIM).astype(np.float32)
    file = folder / "best_prompt.safetensors"
    save_prompt(PromptArtifact(point, **told_parts(settings), result={}), file)
    return file, clients


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_reviews(tmp_path_factory.mktemp("data"), n_train=40, n_test=60)


def test_probabilities_are_those_of_the_library_s_model_with_the_prompt_in_its_embeddings(tmp_path, llama, data):
    file, _ = save_found_prompt(tmp_path, llama, data, prompt_position="prefix")
    classifier = load_classifier(file, dtype="float32", device="cpu")
    found = classifier.probabilities(TEXTS)

    model, tokenizer = AutoModelForCausalLM.from_pretrained(llama), AutoTokenizer.from_pretrained(llama)
    embeddings = model.get_input_embeddings().weight.detach()
    point = load_prompt(file).point
    rng = np.random.RandomState(derive_seed(5, "projection"))
    scale = 2.0 * embeddings.double().std(correction=0).item() / (np.sqrt(DIM) * 0.5)
    projection = rng.standard_normal((3 * 32, DIM)) * scale
    prompt = torch.tensor((projection @ point).reshape(3, 32), dtype=torch.float32)
    words = [tokenizer.encode(word, add_special_tokens=False)[-1] for word in ("a bad", "a great")]
    for row, columns in zip(found, TEXTS, strict=True):
        ids = tokenizer(columns["sentence"] + " It was", return_tensors="pt").input_ids[0]
        rows = torch.cat([embeddings[ids[:1]], prompt, embeddings[ids[1:]]])[None]
        with torch.no_grad():
            logits = model(inputs_embeds=rows).logits[0, -1, words]
        np.testing.assert_allclose(row, torch.softmax(logits.double(), 0).numpy(), atol=2e-5)
    assert np.ptp(found[:, 0]) > 0.01  # the texts do matter


@pytest.mark.parametrize(
    ("family", "options"),
    [("llama", {"prompt_position": "suffix"}), ("roberta", {"cat_or_add": "add"}), ("roberta", {"cat_or_add": "cat"})],
)
def test_the_score_on_the_test_file_is_what_the_clients_counted(tmp_path, data, request, family, options):
    """Though the clients shared the texts out, and asked with other batches and cached texts."""
    file, clients = save_found_prompt(tmp_path, request.getfixturevalue(family), data, **options)
    point = load_prompt(file).point
    counted = sum(client.evaluate({"mean": point}).evaluation.test for client in clients)
    classifier = load_classifier(file, dtype="float32", device="cpu")
    examples = load_file(classifier.spec, data / "validation.csv")
    probabilities = classifier.probabilities(examples.texts)
    result = score(classifier.spec, probabilities, examples.labels)
    assert (sum(result.correct_by_class), result.n) == tuple(counted)
    assert result.value == counted[0] / counted[1]
    assert result.n_by_class == (30, 30)
    assert 0 < result.value < 1


def test_answers_come_in_the_order_of_the_texts_one_by_one_or_together(tmp_path, llama, data):
    file, _ = save_found_prompt(tmp_path, llama, data)
    classifier = load_classifier(file, dtype="float32", device="cpu")
    texts = [{"sentence": " ".join(["a film"] * n)} for n in (9, 1, 30, 4, 2, 16, 3, 8, 5, 20, 7)]
    together = classifier.probabilities(texts)
    one_by_one = np.concatenate([classifier.probabilities([text]) for text in texts])
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)
    np.testing.assert_allclose(together.sum(axis=1), 1)
    assert together.dtype == np.float64
    assert classifier.probabilities([]).shape == (0, 2)


def test_bfloat16_is_near_float32(tmp_path, llama, data):
    file, _ = save_found_prompt(tmp_path, llama, data)
    classifier = load_classifier(file, dtype="bfloat16", device="cpu")
    assert next(classifier.prompted.pretrained.model.model.parameters()).dtype == torch.bfloat16
    exact = load_classifier(file, dtype="float32", device="cpu")
    difference = classifier.probabilities(TEXTS) - exact.probabilities(TEXTS)
    assert 0 < np.abs(difference).max() < 0.1


def test_the_prompt_changes_the_answers_and_zero_shot_has_none(tmp_path, roberta, data):
    file, _ = save_found_prompt(tmp_path, roberta, data)
    classifier = load_classifier(file, dtype="float32", device="cpu")
    examples = load_file(classifier.spec, data / "validation.csv")
    with_prompt = classifier.probabilities(examples.texts)
    zero_shot = classifier.zero_shot(examples)
    assert zero_shot.shape == with_prompt.shape == (60, 2)
    assert np.abs(zero_shot - with_prompt).max() > 0.05
    other = load_classifier(file, dtype="float32", device="cpu")
    np.testing.assert_array_equal(other.zero_shot(examples), zero_shot)
    np.testing.assert_array_equal(other.probabilities(examples.texts), with_prompt)


def test_a_model_elsewhere_is_used_if_it_is_of_the_same_shape(tmp_path, llama, data):
    file, _ = save_found_prompt(tmp_path, llama, data)
    moved = shutil.copytree(llama, tmp_path / "moved")
    here = load_classifier(file, dtype="float32", device="cpu")
    there = load_classifier(file, model_name=str(moved), dtype="float32", device="cpu")
    np.testing.assert_array_equal(here.probabilities(TEXTS), there.probabilities(TEXTS))


def test_another_model_is_refused(tmp_path, llama, roberta, data):
    file, _ = save_found_prompt(tmp_path, llama, data)
    wider = save_tiny_model("llama", tmp_path / "wider", hidden_size=64)
    with pytest.raises(UserError, match=rf"--model_name {wider}: its hidden size is 64, .*{llama}, where it is 32"):
        load_classifier(file, model_name=str(wider), device="cpu")
    with pytest.raises(UserError, match=r"its kind is masked, but the prompt was found with .*, where it is causal"):
        load_classifier(file, model_name=str(roberta), device="cpu")
    with pytest.raises(UserError, match="--model_name /absent/model: there is no such folder"):
        load_classifier(file, model_name="/absent/model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": None}, r"another version of flaretune \(.*alpha"),
        ({"n_prompt_tokens": "3"}, r"\.safetensors: --n_prompt_tokens '3': must be a whole number"),
        ({"n_prompt_tokens": 0}, "--n_prompt_tokens 0: must be at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_the_model_is_loaded(tmp_path, llama, data, changes, message):
    file, _ = save_found_prompt(tmp_path, llama, data)
    artifact = load_prompt(file)
    options = {k: v for k, v in {**artifact.options, **changes}.items() if v is not None}
    save_prompt(replace(artifact, options=options, result={}), file)
    with pytest.raises(UserError, match=message):
        load_classifier(file, model_name="/absent/model")
