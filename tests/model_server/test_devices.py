"""On which devices a model server's workers are, and what they compute in."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from flaretune.config.model_server import ServiceConfig
from flaretune.model_server import server, worker
from flaretune.models import load


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


def test_gpus_are_those_that_torch_finds():
    assert server.count_gpus() == torch.cuda.device_count()


def test_its_number_format_is_one_for_all_of_its_devices(monkeypatch):
    assert worker  # imported before `load` is changed: `setup` imports it, and it what it needs of `load`
    asked, loaded = [], []
    monkeypatch.setattr(load, "resolve_dtype", lambda dtype, *devices: asked.append((dtype, devices)) or "float32")
    monkeypatch.setattr(load, "load_pretrained", lambda *given: loaded.append(given))
    monkeypatch.setattr(server, "end_with_parent", lambda: None)
    server.QueryAPI(ServiceConfig(model_name="m"), "token", ["cuda:0", "cuda:2"]).setup("cuda:9")  # a worker's own
    assert asked == [("auto", (torch.device("cuda:0"), torch.device("cuda:2")))]
    assert loaded == [("m", "float32", "cuda:9", "none")]


def test_logits_that_are_no_numbers_are_sent_too():
    """`--lm local` has a sentence for them; an answer that fails would be asked for again and again."""
    api = server.QueryAPI(ServiceConfig(model_name="m"), "token", ["cpu"])
    response = api.encode_response(worker.Reply(200, {"logits": [[[float("nan"), 1.0]]]}))
    assert response.status_code == 200
    np.testing.assert_array_equal(json.loads(response.body)["logits"], [[[np.nan, 1.0]]])
