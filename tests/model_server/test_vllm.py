"""A vLLM server as the black box: the numbers of a model in the own process, and a sentence for what is wrong."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from flaretune.errors import UserError
from flaretune.model_server import connection, vllm, vllm_check
from flaretune.model_server.connection import TOKEN_VARIABLE
from flaretune.model_server.vllm import VllmServer
from flaretune.model_server.vllm_check import as_prompt
from flaretune.model_server.vllm_models import VllmWords, open_outline, open_vllm_model
from flaretune.models.load import load_pretrained
from flaretune.models.prompted import open_prompted_model
from flaretune.models.word_log_probs import WordLogProbs
from tests.model_server.conftest import EXAMPLES, POINTS, SETTINGS
from tests.tasks_for_tests import review_task
from tests.vllm_for_tests import StandIn, running

SEVERAL_WORDS = {"template": "{sentence} It was", "label_words": [[" bad", " terrible"], " great"]}
TEMPLATES = ("{sentence} It was", "News : {sentence}")
CLOSE = {"rtol": 0, "atol": 1e-4}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(connection, "PAUSE_SECONDS", 0.01)


@pytest.fixture
def serve():
    """``serve(folder, **more)``: a stand-in that runs until the test ends."""
    open_ones = []

    def start(folder, **more) -> StandIn:
        server = StandIn(folder, **more)
        context = running(server)
        context.__enter__()
        open_ones.append(context)
        return server

    yield start
    for context in open_ones:
        context.__exit__(None, None, None)


def opened(server, name, settings=SETTINGS, spec=None, dtype="auto", token="", **more):
    """The prompted model at a server."""
    asked = VllmServer(server.url, token, str(name), 0.05, 20, **more)
    return open_vllm_model(asked, *open_outline(asked, str(name), dtype), spec or review_task(), settings)


def apart(logits):
    """What softmax, hinge and argmax see of logits."""
    return logits - logits.mean(axis=-1, keepdims=True)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])  # scaled embeddings, and names without a prefix
@pytest.mark.parametrize("position", ["prefix", "suffix"])
@pytest.mark.parametrize("causal", [None, SEVERAL_WORDS])
def test_label_words_have_the_scores_of_a_model_in_this_process(serve, tiny, family, position, causal):
    settings = replace(SETTINGS, prompt_position=position, init_prompt="tokens")
    spec = review_task(**({"causal": causal} if causal else {}))
    here = open_prompted_model(spec, str(tiny(family)), settings, dtype="float32", device="cpu")
    there = opened(serve(tiny(family)), tiny(family), settings, spec)
    assert replace(there.facts, name="") == replace(here.facts, name="")
    expected = here.black_box.label_logits(POINTS, here.register(EXAMPLES))
    found = there.black_box.label_logits(POINTS, there.register(EXAMPLES))
    assert np.std(apart(expected)) > 0.05
    np.testing.assert_allclose(apart(found), apart(expected), **CLOSE)
    assert (found.dtype, there.black_box.example_forwards) == (np.float32, POINTS.shape[0] * len(EXAMPLES))
    perturbed = [
        apart(m.black_box.label_logits(POINTS[:1], m.register_perturbed(EXAMPLES, 0.5, 3))) for m in (here, there)
    ]
    np.testing.assert_allclose(*perturbed, **CLOSE)
    np.testing.assert_allclose(apart(there.zero_shot_logits(EXAMPLES)), apart(here.zero_shot_logits(EXAMPLES)), **CLOSE)


def test_log_probabilities_of_all_words_are_those_of_a_model_in_this_process(serve, llama):
    spec, server = review_task(), serve(llama)
    asked = VllmServer(server.url, "", str(llama), 0.05, 20)
    outline, check = open_outline(asked, str(llama), "auto")
    here = WordLogProbs(load_pretrained(str(llama), "float32", "cpu"), spec, TEMPLATES, 4)
    there = VllmWords(asked, outline, spec, TEMPLATES, check.dtype)
    ids = np.concatenate([np.arange(len(outline.tokenizer))[::-1], [7, 7]])
    assert len(ids) > vllm.MOST_WORDS
    np.testing.assert_allclose(there(EXAMPLES.texts, ids), here(EXAMPLES.texts, ids), **CLOSE)
    assert there.example_forwards == here.example_forwards == 2 * len(EXAMPLES)
    assert there([], ids).shape == (0, 2, len(ids))


@pytest.mark.parametrize("most", [-1, 20])
def test_many_words_are_asked_for_at_once_where_the_server_gives_them(serve, llama, monkeypatch, caplog, most):
    monkeypatch.setattr(vllm, "WHOLE_FROM", 200)
    server = serve(llama, max_logprobs=most)
    asked = VllmServer(server.url, "", str(llama), 0.05, 20)
    vocabulary = server.model.config.vocab_size
    found = asked.log_probs([[1, 5], [1, 6, 7]], np.arange(vocabulary))
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-4)
    assert len(server.asked) == (2 if most == -1 else 1 + 2 * -(-vocabulary // vllm.MOST_WORDS))
    assert ("greater than max allowed: 20" in caplog.text) == ("--max-logprobs -1" in caplog.text) == (most == 20)
    server.asked.clear()
    assert np.array_equal(found[:, :150], asked.log_probs([[1, 5], [1, 6, 7]], np.arange(150)))
    assert len(server.asked) == 2


def test_what_is_sent(serve, llama, monkeypatch):
    """Prompts of one kind in a request, several at a time, and never a label or more than 128 words."""
    monkeypatch.setattr(vllm, "MOST_PROMPTS", 8)
    server = serve(llama)
    model = opened(server, llama)
    assert all(("prompt" in message) != ("prompt_embeds" in message) for message in server.asked)
    server.asked.clear()
    model.black_box.label_logits(POINTS, model.register(EXAMPLES))
    assert [len(message["prompt_embeds"]) for message in server.asked] == [8, 8, 4]
    assert all(set(message) & {"prompt", "echo", "stream", "n"} == set() for message in server.asked)
    assert {message["max_tokens"] for message in server.asked} == {1}
    assert str([1, 1, 0, 0, 1])[1:-1] not in json.dumps(server.asked)


def test_a_checkpoint_in_shards_gives_its_word_embeddings_too(serve, gpt2, llama, tmp_path):
    whole = load_pretrained(str(llama), "float32", "cpu")
    whole.model.save_pretrained(tmp_path, max_shard_size="40KB")
    whole.tokenizer.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert opened(serve(llama), tmp_path).facts.hidden_size == 32


def test_half_precision_is_found_and_said(serve, tiny, caplog):
    """The words of a float32 model differ in all log-probabilities, those of a bfloat16 one do not."""
    folder = tiny("gemma3")
    server = serve(folder, dtype=torch.bfloat16)
    model = opened(server, folder)
    assert model.facts.dtype == ""
    assert "computes in half precision" in caplog.text
    here = open_prompted_model(review_task(), str(folder), SETTINGS, dtype="bfloat16", device="cpu")
    found, expected = (apart(m.black_box.label_logits(POINTS, m.register(EXAMPLES))) for m in (model, here))
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.1)
    assert opened(server, folder, dtype="bfloat16").facts.dtype == "bfloat16"
    with pytest.raises(UserError, match=r"half precision .* --dtype is float32; start vLLM with --dtype float32"):
        opened(server, folder, dtype="float32")


# ---- what is wrong, at the start ----


def named(*names):
    return [{"id": name, "root": "/elsewhere", "max_model_len": 128} for name in names]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"takes_embeds": False}, "You must set `--enable-prompt-embeds`"),
        ({"token": "another"}, f"it refuses the token in the environment variable {TOKEN_VARIABLE}"),
        ({"served": named("a", "b")}, "it serves 'a', 'b', and --model_name is .*--served-model-name"),
        ({"served": []}, "it serves no model"),
        ({"served": [3]}, "does not say which models it serves, as a vLLM server does"),
        ({"max_model_len": 12}, "and one more is for the word behind it, but the server takes 12; start it with"),
        ({"failures": [(500, {"error": {"message": "the engine is dead"}})] * 99}, "status 500: the engine is dead"),
        ({"failures": [(400, {"error": {"message": "such is life"}})]}, ": such is life$"),
        ({"failures": [(404, {})]}, "status 404, as no vLLM server does"),
        ({"failures": [(413, {})]}, "larger than what stands before the server lets through"),
    ],
)
def test_a_server_that_does_not_fit_is_refused(serve, llama, changes, sentence):
    server = serve(llama, **changes)
    with pytest.raises(UserError, match=sentence) as refused:
        opened(server, llama)
    assert str(refused.value).startswith(f"--model_server {server.url}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("there", "sentence"),
    [
        ({"family": "llama", "seed": 5}, "word embeddings of --model_name .* are not those of its model"),
        ({"family": "llama", "hidden_size": 64}, "hidden size 32 is not that of the model"),
        ({"family": "llama", "words": ("another",)}, "and the tokenizer of --model_name .* or for other ones"),
        ({"family": "gpt2"}, "contain out-of-vocab token ids"),
    ],
)
def test_another_model_or_tokenizer_is_found(serve, tiny, there, sentence):
    server = serve(tiny(**there), served=named("m"))
    with pytest.raises(UserError, match=sentence):
        opened(server, tiny("llama"))


def test_embeddings_without_the_model_s_scaling_are_found(serve, tiny, monkeypatch):
    """As of a model whose scaling the client did not know of."""
    folder = tiny("gemma3")
    monkeypatch.setattr(vllm_check, "as_prompt", lambda rows: as_prompt(rows / 32**0.5))
    with pytest.raises(UserError, match="other log-probabilities than as token ids"):
        opened(serve(folder), folder)


def test_a_masked_model_is_refused(serve, llama, roberta):
    server = serve(llama, served=named("m"))
    with pytest.raises(UserError, match="is a masked language model, and vLLM gives log-probabilities of causal ones"):
        opened(server, roberta)


def test_which_of_the_served_models_is_asked(serve, llama):
    server = serve(llama, served=[*named("a"), {"id": "b", "root": str(llama)}])
    assert VllmServer(server.url, "", str(llama), 0.05, 20).model == "b"
    server.served = named("whatever")
    assert VllmServer(server.url, "", str(llama), 0.05, 20).model == "whatever"
    with pytest.raises(UserError, match="it serves 'whatever', and --model_name is"):
        VllmServer(server.url, "", str(llama), 0.05, 20, by_name=True)


def test_the_token_is_shown(serve, llama):
    assert opened(serve(llama, token="s3cret"), llama, token="s3cret").facts.kind == "causal"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda said: {}, "it lacks the log-probability of token"),
        (lambda said: {key: -9999.0 for key in said}, "log-probabilities that are no numbers"),
        (lambda said: {key: float("nan") for key in said}, "log-probabilities that are no numbers"),
        (lambda said: {key: 3.5 for key in said}, "add up to more than 1; start vLLM with --logprobs-mode"),
        (lambda said: {key: "high" for key in said}, "cannot be used"),
    ],
)
def test_an_answer_that_cannot_be_is_no_answer(serve, llama, change, sentence):
    def changed(reply):
        for choice in reply["choices"]:
            (said,) = choice["logprobs"]["top_logprobs"]
            choice["logprobs"]["top_logprobs"] = [change(said)]
        return reply

    with pytest.raises(UserError, match=sentence):
        opened(serve(llama, change=changed), llama)


@pytest.mark.parametrize("change", [lambda r: {**r, "choices": r["choices"] * 2}, lambda r: {}, lambda r: {"usage": 3}])
def test_an_answer_to_another_question_is_no_answer(serve, llama, change):
    with pytest.raises(UserError, match="its answer cannot be used"):
        opened(serve(llama, change=change), llama)


def test_nobody_there(free_port, llama):
    with pytest.raises(UserError, match=r"does not answer: no connection .*; start vLLM with"):
        VllmServer(f"vllm+http://127.0.0.1:{free_port}", "", str(llama), 0.05, 20)


# ---- what goes wrong later ----


def test_a_server_that_comes_back_goes_on(serve, llama):
    server = serve(llama)
    model = opened(server, llama)
    texts = model.register(EXAMPLES)
    before = model.black_box.label_logits(POINTS, texts)
    server.failures += [(503, {})]
    assert np.array_equal(model.black_box.label_logits(POINTS, texts), before)


def test_a_server_that_is_gone_for_a_while_is_waited_for(llama, free_port):
    """For longer than at the start, where nobody may be meant to be there."""
    server = StandIn(llama)
    with running(server, free_port):
        model = opened(server, llama)
        texts = model.register(EXAMPLES)
        before = model.black_box.label_logits(POINTS, texts)
    context = running(server, free_port)
    later = threading.Timer(1.0, context.__enter__)
    later.start()
    try:
        assert np.array_equal(model.black_box.label_logits(POINTS, texts), before)
    finally:
        later.join()
        context.__exit__(None, None, None)


@pytest.mark.parametrize("seen", [True, False])
def test_a_server_that_comes_back_with_another_model_is_found(serve, llama, tiny, seen, monkeypatch):
    """Whether a request failed meanwhile, or none was sent."""
    server = serve(llama)
    model = opened(server, llama)
    texts = model.register(EXAMPLES)
    server.load(tiny("llama", seed=5))
    if seen:
        server.failures += [(503, {})]
    else:
        monkeypatch.setattr(vllm, "QUIET_SECONDS", 0.0)
    with pytest.raises(UserError, match="other log-probabilities than when this client started"):
        model.black_box.label_logits(POINTS, texts)


def test_texts_that_the_server_has_no_room_for_are_refused_before_they_are_sent(serve, llama):
    model = opened(serve(llama, max_model_len=80), llama)
    long = replace(EXAMPLES, texts=({"sentence": "a dull film " * 40},) * len(EXAMPLES))
    with pytest.raises(UserError, match=r"but the server takes 80; start it with --max-model-len \d+ or more"):
        model.register(long)
    with pytest.raises(UserError, match="but the server takes 80"):
        model.zero_shot_logits(long)
