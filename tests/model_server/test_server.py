"""The model server for real: `python -m flaretune serve` in processes of its own, and what happens when they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import requests

from flaretune.config.model_server import ServiceConfig
from flaretune.config.options import build
from flaretune.engine import codec
from flaretune.errors import UserError
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.registry import find_method
from flaretune.model_server.client import is_ready, open_remote_model
from flaretune.model_server.connection import TOKEN_VARIABLE
from flaretune.model_server.launch import running_model_server
from flaretune.models.prompted import open_prompted_model
from tests.engine.in_process import run_job
from tests.learnable import write_reviews
from tests.model_server.conftest import EXAMPLES, POINTS, SETTINGS
from tests.tasks_for_tests import review_task

pytestmark = pytest.mark.slow


def config(folder, **more):
    return build(ServiceConfig, {"model_name": folder, "dtype": "float32", "device": "cpu", "batch_size": 2, **more})


def opened(url, folder, token=None, patience=1.0):
    token = token or os.environ[TOKEN_VARIABLE]
    return open_remote_model(url, token, review_task(), folder, "float32", SETTINGS, patience=patience)


def family_of(url: str) -> list[psutil.Process]:
    """The processes of the model server that this one has started: the one that listens at the address first."""
    family = [p for child in psutil.Process().children() for p in [child, *child.children(recursive=True)]]
    port = url.rsplit(":", 1)[1]
    return [p for p in family if port in p.cmdline() or "multiprocessing" in " ".join(p.cmdline())]


def gone(processes, seconds: float = 30) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


@pytest.mark.parametrize(("family", "workers"), [("gemma3", 2), ("roberta", 1)])
def test_queries_of_several_clients(model_folders, tmp_path, family, workers):
    folder = model_folders[family]
    local = open_prompted_model(
        review_task(), folder, SETTINGS, dtype="float32", device="cpu", batch_size=2, cache_mb=1024
    )
    expected = local.black_box.label_logits(POINTS, local.register(EXAMPLES))
    with running_model_server(config(folder, workers=workers), tmp_path / "log") as url:
        token = os.environ[TOKEN_VARIABLE]
        client = (
            "import sys, json, numpy as np; from tests.model_server.test_server import *\n"
            f"model = opened({url!r}, {folder!r}, patience=30)\n"
            "for _ in range(5): logits = model.black_box.label_logits(POINTS, model.register(EXAMPLES))\n"
            "print(json.dumps(logits.tolist()))"
        )
        clients = [
            subprocess.Popen([sys.executable, "-c", client], stdout=subprocess.PIPE, text=True) for _ in range(3)
        ]
        answers = [np.array(json.loads(c.communicate(timeout=120)[0]), dtype=np.float32) for c in clients]
        assert [c.returncode for c in clients] == [0, 0, 0]
        processes = family_of(url)
        assert requests.get(url + "/health", timeout=5).status_code == 401
        wrong = requests.post(url + "/ask", json={}, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        assert wrong.status_code == 400
    for logits in answers:
        assert np.array_equal(logits, expected)
    assert gone(processes)
    assert TOKEN_VARIABLE not in os.environ


def test_a_killed_worker_ends_the_server_and_its_clients_are_told(model_folders, tmp_path):
    folder = model_folders["roberta"]
    with running_model_server(config(folder), tmp_path / "log") as url:
        model = opened(url, folder)
        main, *others = family_of(url)
        [worker] = [p for p in others if p.memory_info().rss == max(o.memory_info().rss for o in others)]
        worker.kill()
        assert gone([main, *others])
        with pytest.raises(UserError, match="the model server does not answer: no connection"):
            model.black_box.label_logits(POINTS, model.register(EXAMPLES))
    assert "error: " in (tmp_path / "log").read_text()


@pytest.mark.parametrize("how", ["a killed worker", "a server told to stop"])
def test_an_open_query_is_told_too_and_nobody_is_left_behind(model_folders, tmp_path, how):
    folder, told = model_folders["roberta"], []
    many = type(EXAMPLES)(tuple({"sentence": "good film " * 100} for _ in range(400)), np.zeros(400, dtype=np.int64))
    with running_model_server(config(folder), tmp_path / "log") as url:
        model = opened(url, folder)
        main, *others = family_of(url)
        worker = max(others, key=lambda process: process.memory_info().rss)

        def query():
            with pytest.raises(UserError) as caught:
                model.black_box.label_logits(np.tile(POINTS, (100, 1)), model.register(many))
            told.append(str(caught.value))

        idle = worker.cpu_times().user
        open_query = threading.Thread(target=query)
        open_query.start()
        while worker.cpu_times().user < idle + 0.5:  # it works on the query
            time.sleep(0.05)
        worker.kill() if how == "a killed worker" else main.terminate()
        assert gone([main, *others])
        open_query.join(30)
    assert len(told) == 1
    assert "the model server does not answer: no connection" in told[0]
    if how == "a killed worker":
        assert "error: a worker has ended, killed perhaps for lack of memory (" in (tmp_path / "log").read_text()


def test_a_job_whose_model_server_loses_its_worker_fails_with_a_sentence_of_every_client(model_folders, tmp_path):
    folder = model_folders["roberta"]
    data = write_reviews(tmp_path / "data", n_train=40, n_test=8)
    with running_model_server(config(folder), tmp_path / "log") as url:
        main, *others = family_of(url)

        def lose_the_worker(_client, task, round_number, reply):
            if (task, round_number) == (codec.INITIALIZE, 0) and main.is_running():
                max(others, key=lambda process: process.memory_info().rss).kill()
                assert gone([main, *others])
            return reply

        options = {"model_name": folder, "dataset": str(data), "k_shot": 4, "dtype": "float32", "local_iter": 1}
        client = FedBPTConfig(**options, n_prompt_tokens=3, intrinsic_dim=6, model_server=url, model_server_timeout=1)
        clients = dict.fromkeys(["site-1", "site-2"], client)
        told = run_job(find_method("fedbpt"), clients, tmp_path / "results", change=lose_the_worker, num_rounds=1)
    assert told.failure
    assert set(told.client_failures) == {"site-1", "site-2"}
    assert all("the model server does not answer" in sentence for sentence in told.client_failures.values())


def test_a_killed_server_leaves_nobody_behind_and_another_takes_over(model_folders, free_port, tmp_path):
    folder, token = model_folders["roberta"], "a-token"
    url = f"http://127.0.0.1:{free_port}"
    flags = ["--model_name", folder, "--dtype", "float32", "--device", "cpu", "--port", str(free_port)]
    command = [sys.executable, "-m", "flaretune", "serve", *flags]
    environment = {**os.environ, TOKEN_VARIABLE: token}

    def start(log):
        with (tmp_path / log).open("w") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, text=True)
        while f"{folder} answers at {url}, on cpu\n" not in (tmp_path / log).read_text():
            assert process.poll() is None, (tmp_path / log).read_text()
            time.sleep(0.1)
        return process

    first = start("first")
    model = opened(url, folder, token, patience=60)
    before = model.black_box.label_logits(POINTS, model.register(EXAMPLES))
    workers = [p for p in psutil.Process(first.pid).children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
    assert workers
    first.kill()
    first.wait()
    assert gone(workers)
    assert not is_ready(url, token)
    second = start("second")
    try:
        assert np.array_equal(model.black_box.label_logits(POINTS, model.register(EXAMPLES)), before)
        taken = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert taken.returncode == 1
        assert f"error: port {free_port} of 127.0.0.1 cannot be listened at" in taken.stderr
    finally:
        processes = [psutil.Process(second.pid), *psutil.Process(second.pid).children(recursive=True)]
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0
        assert gone(processes)
    assert "ERROR" not in (tmp_path / "second").read_text()  # an end that was asked for is none


def test_a_message_that_is_too_large(model_folders, tmp_path):
    folder = model_folders["roberta"]
    with running_model_server(config(folder, max_mb=1), tmp_path / "log") as url:
        model = opened(url, folder)
        long = type(EXAMPLES)(tuple({"sentence": "good " * 60_000} for _ in EXAMPLES.texts), EXAMPLES.labels)
        with pytest.raises(UserError, match="larger --max_mb"):
            model.black_box.label_logits(POINTS, model.register(long))
        assert model.black_box.label_logits(POINTS, model.register(EXAMPLES)).shape == (4, 5, 2)


def test_a_server_without_a_model_says_so(tmp_path):
    no_such_folder = pytest.raises(UserError, match=r"did not start: --model_name .*none: there is no such folder")
    with no_such_folder, running_model_server(config(str(tmp_path / "none")), tmp_path / "log"):
        pass
    assert "Traceback" not in (tmp_path / "log").read_text()
