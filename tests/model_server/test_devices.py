"""On which devices a model server's workers are, and what they compute in."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flaretune.config.model_server import ServiceConfig
from flaretune.model_server import server, worker
from flaretune.models import device, load


@pytest.mark.parametrize(
    ("device", "n_gpus", "expected"),
    [
        ("auto", 0, ["cpu"]),
        ("auto", 2, ["cuda:0", "cuda:1"]),
        ("cpu", 2, ["cpu"]),
        ("cuda", 2, ["cuda:0"]),
        ("cuda:0,cuda:2", 4, ["cuda:0", "cuda:2"]),
    ],
)
def test_its_devices(monkeypatch, device, n_gpus, expected):
    monkeypatch.setattr(server, "count_gpus", lambda: n_gpus)
    assert server.find_devices(device) == expected


@pytest.mark.slow
def test_gpus_are_those_that_torch_finds():
    assert server.count_gpus() == torch.cuda.device_count()


@pytest.fixture
def set_up(monkeypatch):
    """A model server's API on devices, set up without a model; and what it asked and loaded."""

    def one(devices, reply=None):
        assert worker  # imported before these are changed: `setup` imports it, and it what it needs of them
        asked, loaded = [], []
        monkeypatch.setattr(
            device, "resolve_dtype", lambda dtype, *devices: asked.append((dtype, devices)) or "float32"
        )
        monkeypatch.setattr(load, "load_pretrained", lambda *given: loaded.append(given))
        answering = SimpleNamespace(lanes=SimpleNamespace(count=1), reply=lambda _query: reply)
        monkeypatch.setattr(worker, "Worker", lambda *_: answering)
        monkeypatch.setattr(server, "read_query", lambda message: message)
        monkeypatch.setattr(server, "end_with_parent", lambda: None)
        api = server.QueryAPI(ServiceConfig(model_name="m"), "token", devices)
        api.setup(devices[-1])
        return api, asked, loaded

    return one


def test_its_number_format_is_one_for_all_of_its_devices(set_up):
    _, asked, loaded = set_up(["cuda:0", "cuda:2"])
    assert asked == [("auto", (torch.device("cuda:0"), torch.device("cuda:2")))]
    assert loaded == [("m", "float32", "cuda:2", "none")]


def test_logits_that_are_no_numbers_are_sent_too(set_up):
    """`--model_server local` has a sentence for them; an answer that fails would be asked for again and again."""
    api, _, _ = set_up(["cpu"], worker.Reply(200, {"logits": [[[float("nan"), 1.0]]]}))

    async def answer():
        return await api.encode_response(await api.predict({}))

    response = asyncio.run(answer())
    assert response.status_code == 200
    np.testing.assert_array_equal(json.loads(response.body)["logits"], [[[np.nan, 1.0]]])
