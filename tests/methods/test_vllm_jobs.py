"""Whole jobs in this process whose clients ask a vLLM server: the numbers of clients that load the model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flaretune.errors import UserError
from flaretune.methods.fedbpt.artifact import load_prompt
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.registry import find_method, load_classifier
from flaretune.methods.verbalizer.artifact import load_verbalizer
from flaretune.methods.verbalizer.config import VerbalizerConfig
from tests.engine.in_process import run_job
from tests.learnable import write_reviews
from tests.vllm_for_tests import StandIn, running

CLIENTS = ["site-1", "site-2"]
SMALL = {"k_shot": 8, "dtype": "float32", "eval_clients": "all"}
SEARCH = {"n_prompt_tokens": 3, "intrinsic_dim": 6, "local_iter": 2, "local_popsize": 4}
JOBS = {
    "words": ("fedbpt", FedBPTConfig, {**SEARCH, "perturb": 1, "loss_type": "hinge"}, {"num_rounds": 2}),
    "calibrated": ("fedbpt", FedBPTConfig, {**SEARCH, "calibrate": "batch"}, {"num_rounds": 1}),
    "learned": ("fedbpt", FedBPTConfig, {**SEARCH, "verbalizer": "learned", "n_words": 8}, {"num_rounds": 1}),
    "verbalizer": ("verbalizer", VerbalizerConfig, {"n_words": 8}, {}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(write_reviews(tmp_path_factory.mktemp("data"), n_train=60, n_test=12))


def run(kind, model, data, folder, **more):
    method, config, options, server = JOBS[kind]
    client = config(model_name=str(model), dataset=data, **SMALL, **options, **more)
    told = run_job(find_method(method), dict.fromkeys(CLIENTS, client), folder, **server)
    assert (told.failure, told.client_failures) == ("", {})
    return folder, json.loads((folder / "summary.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", JOBS)
def test_a_job_has_the_numbers_of_one_whose_clients_load_the_model(kind, llama, data, tmp_path):
    here, expected = run(kind, llama, data, tmp_path / "here")
    with running(StandIn(llama, max_model_len=250)) as url:
        there, found = run(kind, llama, data, tmp_path / "there", model_server=url)
    for key in ("test_accuracy", "zero_shot_accuracy", "validation_accuracy", "best_round", "queries"):
        assert found[key] == expected[key], key
    if kind in ("words", "calibrated"):
        assert found["example_forwards"] == expected["example_forwards"]
    assert set(found["dtypes"].values()) == {"float32"}
    losses = [[r["validation_loss"] for r in summary["rounds"]] for summary in (found, expected)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    if kind == "verbalizer":
        heads = [load_verbalizer(folder / "best_verbalizer.safetensors").learned.head for folder in (there, here)]
        assert np.array_equal(heads[0].words, heads[1].words)
        np.testing.assert_allclose(heads[0].weights, heads[1].weights, atol=1e-3)
    else:
        points = [load_prompt(folder / "best_prompt.safetensors").point for folder in (there, here)]
        np.testing.assert_allclose(*points, atol=1e-3)
        assert load_classifier(there / "best_prompt.safetensors", model_name=str(llama))


def test_a_verbalizer_asks_for_all_candidates_of_the_texts_it_chooses_them_by_alone(llama, data, tmp_path):
    """Words cost passes: 12 test texts are asked about the label words, and about those that were chosen."""
    server = StandIn(llama, max_model_len=250)
    with running(server) as url:
        run("verbalizer", llama, data, tmp_path, model_server=url)
    texts = [(len(message["prompt"]), len(message["logprob_token_ids"])) for message in server.asked]
    of_test_texts = [n_words for n_texts, n_words in texts if n_texts == 6]  # of each client
    assert len(of_test_texts) == 4
    assert max(of_test_texts) <= 2 + 8


@pytest.mark.parametrize(
    ("config", "options", "sentence"),
    [
        (FedBPTConfig, {"cat_or_add": "cat"}, "--cat_or_add cat is of masked models"),
        (FedBPTConfig, {"cache_mb": 0}, "--cache_mb 0 is the model server's"),
        (FedBPTConfig, {"device": "cpu"}, "give them to the vLLM server"),
        (VerbalizerConfig, {"batch_size": 4}, "give them to the vLLM server"),
        (VerbalizerConfig, {"model_server": "http://a:1"}, "answers FedBPT's clients alone; give a verbalizer's local"),
        (FedBPTConfig, {"model_server": "http://a:1", "verbalizer": "learned"}, "or a vLLM server"),
        (FedBPTConfig, {"model_server": "vllm://a:1"}, r"or vllm\+http://127.0.0.1:8000 of vLLM"),
        (VerbalizerConfig, {"model_server": "vllm+http://a:1/v1"}, "must be local, or the address"),
    ],
)
def test_options_that_do_not_go_with_a_vllm_server(config, options, sentence):
    with pytest.raises(UserError, match=sentence):
        config(**{"model_server": "vllm+http://a:1", **options})
    assert config(model_server="vllm+https://models.example.org/").uses_vllm
