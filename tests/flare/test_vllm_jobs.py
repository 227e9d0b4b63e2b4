"""A real vLLM server (`make vllm`) with a tiny model: its numbers, its refusals, and jobs of real processes on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import requests

from flaretune import host
from flaretune.errors import UserError
from flaretune.methods.fedbpt.artifact import load_prompt
from flaretune.methods.verbalizer.artifact import load_verbalizer
from flaretune.model_server.connection import TOKEN_VARIABLE
from flaretune.model_server.vllm import VllmServer
from flaretune.model_server.vllm_models import VllmWords, open_outline, open_vllm_model
from flaretune.models.load import load_pretrained
from flaretune.models.prompted import open_prompted_model
from flaretune.models.word_log_probs import WordLogProbs
from tests.flare.same_job import run_here
from tests.jobs_for_tests import REPOSITORY, command_in, create_from_template, read_summary
from tests.model_server.conftest import EXAMPLES, POINTS, SETTINGS
from tests.tasks_for_tests import review_task

PYTHON = REPOSITORY / ".venv-vllm" / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (REPOSITORY / ".venv-vllm" / "ready").exists(), reason="no vLLM in .venv-vllm; `make vllm` installs it"
    ),
]
# a head of attention must have 32 or more numbers for vLLM on the CPU
WIDER = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32, "sliding_window": 16}
START_SECONDS = 600
SMALL = ["--dtype", "float32", "--k_shot", "12", "--eval_clients", "all"]
SEARCH = ["--n_prompt_tokens", "3", "--intrinsic_dim", "12", "--local_iter", "2", "--perturb", "1"]
JOBS = {
    "fedbpt": ([*SMALL, *SEARCH], {"num_rounds": 2}),
    "verbalizer": ([*SMALL, "--n_words", "16"], {}),
}


@contextmanager
def vllm_server(folder, log, *flags):
    """Its address, for --model_server, while it runs."""
    port = host.free_port()
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--port", port, *flags]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(part) for part in (*command, "--host", "127.0.0.1", "--max-model-len", 256, "--enforce-eager")],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        started = time.monotonic()
        while not _is_ready(port):
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() - started < START_SECONDS
            time.sleep(1)
        yield f"vllm+http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _is_ready(port) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok
    except requests.RequestException:
        return False


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("gemma3", std=0.2, **WIDER)


@pytest.fixture(scope="module")
def url(model, tmp_path_factory):
    """A server in float32, with prompt embeddings and a token."""
    log = tmp_path_factory.mktemp("vllm") / "log.txt"
    with vllm_server(model, log, "--enable-prompt-embeds", "--dtype", "float32", "--api-key", "s3cret") as address:
        yield address


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")


def server_at(url, model, token="s3cret") -> VllmServer:
    return VllmServer(url, token, str(model), 5, 120)


def apart(logits):
    return logits - logits.mean(axis=-1, keepdims=True)


@pytest.mark.parametrize("position", ["prefix", "suffix"])
def test_scores_of_label_words_are_those_of_transformers(url, model, position):
    settings = replace(SETTINGS, prompt_position=position, init_prompt="tokens")
    server = server_at(url, model)
    there = open_vllm_model(server, *open_outline(server, str(model), "float32"), review_task(), settings)
    here = open_prompted_model(review_task(), str(model), settings, dtype="float32", device="cpu")
    for asked in ("register", "zero_shot_logits"):
        found, expected = (
            m.zero_shot_logits(EXAMPLES)
            if asked == "zero_shot_logits"
            else m.black_box.label_logits(POINTS, m.register(EXAMPLES))
            for m in (there, here)
        )
        assert np.std(apart(expected)) > 0.05
        np.testing.assert_allclose(apart(found), apart(expected), rtol=0, atol=1e-4)


def test_log_probabilities_of_all_words_are_those_of_transformers(url, model):
    server, templates = server_at(url, model), ("{sentence} It was", "News : {sentence}")
    outline, check = open_outline(server, str(model), "auto")
    assert check.dtype == "float32"
    ids = np.arange(len(outline.tokenizer))
    found = VllmWords(server, outline, review_task(), templates, "")(EXAMPLES.texts, ids)
    here = WordLogProbs(load_pretrained(str(model), "float32", "cpu"), review_task(), templates, 4)
    np.testing.assert_allclose(found, here(EXAMPLES.texts, ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", JOBS)
def test_a_job_of_two_clients_in_the_simulator_has_the_numbers_of_a_local_one(method, url, model, folders, tmp_path):
    options, server = JOBS[method]
    flags = ["--model_name", str(model), "--dataset", folders["data"], *options]
    job = [sys.executable, f"jobs/{method}_job.py", *flags, "--model_server", url, "--output", tmp_path / "there"]
    rounds = [part for name, value in server.items() for part in (f"--{name}", value)]
    done = command_in(tmp_path)(*job, *rounds)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(method, tmp_path / "there", run_here(method, flags, ["site-1", "site-2"], tmp_path / "here", **server))


def test_a_job_from_the_template_passes_the_option_on(url, model, folders, tmp_path):
    options, server = JOBS["fedbpt"]
    flags = ["--model_name", str(model), "--dataset", folders["data"], *options, "--seed", "7"]
    run, server = command_in(tmp_path), {**server, "covariance": "diagonal"}
    told = " ".join([*flags, "--model_server", url]).join(['"', '"'])  # HOCON does not take a + outside quotes
    create_from_template(run, "fedbpt", tmp_path / "fedbpt", told, min_clients=2, seed=7, **server)
    done = run("nvflare", "simulator", tmp_path / "fedbpt", *["-n", "2", "-t", "2", "-w"], tmp_path / "out")
    assert done.returncode == 0, done.stdout[-3000:]
    here = run_here("fedbpt", flags, ["site-1", "site-2"], tmp_path / "here", **server)
    assert_same("fedbpt", tmp_path / "out" / "server" / "simulate_job" / "flaretune", here)


def assert_same(method, found, expected) -> None:
    """Folders of results that differ by rounding alone."""
    mine, theirs = read_summary(found), read_summary(expected)
    keys = ["test_accuracy", "zero_shot_accuracy", "validation_accuracy", "best_round", "queries"]
    keys += (
        ["example_forwards"] if method == "fedbpt" else []
    )  # a verbalizer's texts are asked about as words are needed
    assert {key: mine[key] for key in keys} == {key: theirs[key] for key in keys}
    losses = [[r["validation_loss"] for r in summary["rounds"]] for summary in (mine, theirs)]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    if method == "fedbpt":
        points = [load_prompt(folder / "best_prompt.safetensors").point for folder in (found, expected)]
        np.testing.assert_allclose(*points, atol=1e-3)
    else:
        heads = [load_verbalizer(f / "best_verbalizer.safetensors").learned.head for f in (found, expected)]
        assert np.array_equal(heads[0].words, heads[1].words)


def test_refusals_are_passed_on(url, model, tiny):
    with pytest.raises(UserError, match="refuses the token"):
        server_at(url, model, token="another")
    with pytest.raises(UserError, match=r"logprob_token_ids .*out-of-vocab"):
        server_at(url, model).ask([[2, 5]], np.array([10**6]))
    server = server_at(url, model)
    narrow = open_outline(server, str(tiny("gemma3")), "auto")  # of the same tokenizer
    with pytest.raises(UserError, match="hidden_size 32 does not match"):
        open_vllm_model(server, *narrow, review_task(), SETTINGS)
    server = server_at(url, model)
    other = open_outline(server, str(tiny("gemma3", seed=3, **WIDER)), "auto")
    with pytest.raises(UserError, match="are not those of its model"):
        open_vllm_model(server, *other, review_task(), SETTINGS)


def test_bfloat16_without_prompt_embeddings(model, tmp_path):
    """What it computes in is found out, words are given, and prompts are refused."""
    with vllm_server(model, tmp_path / "log.txt", "--dtype", "bfloat16") as url:
        server = server_at(url, model)
        outline, check = open_outline(server, str(model), "auto")
        assert (check.coarse, check.dtype) == (True, "")
        ids = np.arange(5, 60)
        found = VllmWords(server, outline, review_task(), ("{sentence} It was",), "")(EXAMPLES.texts, ids)
        here = WordLogProbs(load_pretrained(str(model), "bfloat16", "cpu"), review_task(), ("{sentence} It was",), 4)
        np.testing.assert_allclose(found, here(EXAMPLES.texts, ids), rtol=0, atol=0.5)
        with pytest.raises(UserError, match="enable-prompt-embeds"):
            open_vllm_model(server, outline, check, review_task(), SETTINGS)
