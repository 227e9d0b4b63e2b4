"""The client against an HTTP server that says what a test tells it to."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import requests

from flaretune.errors import UserError
from flaretune.model_server import connection
from flaretune.model_server.client import QueryConnection, is_ready, open_remote_model
from flaretune.model_server.connection import TOKEN_VARIABLE
from flaretune.model_server.protocol import Query, named
from tests.model_server.conftest import EXAMPLES, POINTS, SETTINGS
from tests.tasks_for_tests import review_task

MODEL = {"model": {"name": "m", "kind": "masked", "model_type": "roberta", "hidden_size": 4, "dtype": "bfloat16"}}


@pytest.fixture
def scripted(monkeypatch):
    """``scripted(answers)``: address of a server that gives these (status, body) in turn, and the messages it got."""
    monkeypatch.setattr(connection, "PAUSE_SECONDS", 0.01)
    servers = []

    def start(*answers):
        script, got = iter(answers), []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                start.authorization.append(self.headers["Authorization"])
                got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status, body = next(script)
                raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", got

    start.authorization = []
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def opened(url, **more):
    return open_remote_model(url, "token", review_task(), "m", "float32", SETTINGS, **{"patience": 0.05, **more})


def logits(n_points, n_texts):
    return np.arange(n_points * n_texts * 2, dtype=np.float32).reshape(n_points, n_texts, 2) / 7


def test_contents_are_sent_once_they_are_asked_for(scripted):
    first, second = logits(4, 5), logits(1, 5)
    url, got = scripted(
        (404, {"unknown": "box"}), (200, MODEL), (404, {"unknown": "texts"}), (200, {"logits": first.tolist()}),
        (200, {"logits": second.tolist()}),
    )  # fmt: skip
    model = opened(url)
    assert (model.facts.kind, model.facts.hidden_size) == ("masked", 4)
    texts = model.register(EXAMPLES)
    assert len(texts) == 5
    assert np.array_equal(model.black_box.label_logits(POINTS, texts), first)
    assert np.array_equal(model.black_box.label_logits(POINTS[:1], texts), second)
    assert model.black_box.example_forwards == 4 * 5 + 5
    assert [m["black_box"]["content"] is not None for m in got] == [False, True, False, True, False]
    assert [bool(m["texts"] and m["texts"]["content"]) for m in got] == [False, False, False, True, False]
    assert got[-1]["points"] == POINTS[:1].tolist()
    assert str([1, 1, 0, 0, 1])[1:-1] not in json.dumps(got)  # the labels stay here


def test_a_server_that_comes_back_gets_the_query_again(scripted):
    url, got = scripted((503, {}), (500, {"detail": "Internal server error"}), (404, {"unknown": "b"}), (200, MODEL))
    assert opened(url, patience=30).facts.name == "m"
    assert len(got) == 4


def test_patience_begins_with_the_first_failure(scripted, monkeypatch):
    """However long the answer took that did not come."""
    url, got = scripted((503, {}), (200, MODEL), *[(503, {})] * 3)
    clock, post = [0.0], requests.Session.request
    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda seconds: None))

    def slow(*given, **more):
        clock[0] += 61
        return post(*given, **more)

    monkeypatch.setattr(requests.Session, "request", slow)
    assert opened(url, patience=60).facts.name == "m"
    with pytest.raises(UserError, match="does not answer: it answers with status 503"):
        opened(url, patience=60)
    assert len(got) == 4


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_what_goes_to_this_machine_takes_no_proxy_and_no_password_of_netrc(scripted, monkeypatch, tmp_path, host):
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password mine\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody is
    monkeypatch.setenv("no_proxy", "")
    url, _ = scripted((200, MODEL))
    assert opened(url.replace("127.0.0.1", host)).facts.name == "m"
    assert scripted.authorization == ["Bearer token"]


def test_what_goes_elsewhere_takes_the_proxy_of_the_environment(scripted, monkeypatch):
    proxy, _ = scripted((200, MODEL))
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    assert opened("http://models.invalid:8765").facts.name == "m"


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ([(401, {"detail": "no"})], f"it refuses the token in the environment variable {TOKEN_VARIABLE}"),
        ([(413, {"detail": "Payload too large"})], "larger --max_mb"),
        ([(400, {"error": "this is wrong"})], "this is wrong"),
        ([(404, b"<html>")], "status 404, as no model server of flaretune does"),
        ([(200, b"hello")], "status 200, as no model server of flaretune does"),
        ([(200, {"model": {"name": "m"}})], "no model server of flaretune"),
        ([(200, {"other": 1})], "no model server of flaretune"),
        ([(500, {"error": "no memory"})] * 100, "does not answer: it answers with status 500: no memory; start it"),
        ([(500, {})] * 100, "does not answer: it answers with status 500; start it"),
        ([(504, {"detail": "Request timed out"})] * 100, "504: Request timed out; .* --model_server_timeout"),
    ],
)
def test_what_goes_wrong_is_said_in_a_sentence(scripted, answers, sentence):
    url, _ = scripted(*answers)
    with pytest.raises(UserError, match=sentence):
        opened(url)


@pytest.mark.parametrize("body", [{"logits": [[[1.0, 2.0]]]}, {"logits": None}, {"logits": "a"}, {"else": 1}])
def test_an_answer_to_another_question_is_no_answer(scripted, body):
    url, _ = scripted((200, MODEL), (200, body))
    model = opened(url)
    with pytest.raises(UserError, match="its answer cannot be used"):
        model.black_box.label_logits(POINTS, model.register(EXAMPLES))


def test_nobody_there_and_no_token(free_port):
    url = f"http://127.0.0.1:{free_port}"
    with pytest.raises(UserError, match="does not answer: no connection"):
        opened(url)
    with pytest.raises(UserError, match=f"environment variable {TOKEN_VARIABLE}"):
        open_remote_model(url, "", review_task(), "m", "float32", SETTINGS)
    assert not is_ready(url, "token")


def test_an_answer_that_does_not_come_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        asked = QueryConnection(f"http://127.0.0.1:{silent.getsockname()[1]}", "token", patience=0, answer_seconds=0.2)
        with pytest.raises(UserError, match=r"no answer within 0\.2 seconds; .* --model_server_timeout"):
            asked.send(Query(named({}), None, None))


def test_a_client_loads_neither_torch_nor_transformers_nor_what_pycma_plots_with():
    """And the two that pycma found not to be installed can be imported afterwards."""
    code = (
        "import sys, flaretune.methods.fedbpt.open, flaretune.flare.client_script\n"
        "heavy = ('torch', 'transformers', 'peft', 'litserve', 'matplotlib', 'scipy')\n"
        "print([m for m in heavy if m in sys.modules])\n"
        "import matplotlib, scipy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
