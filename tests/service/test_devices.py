"""The number format of a service whose workers may be on several devices."""

from __future__ import annotations

import pytest
import torch

from flaretune.config.service import ServiceConfig
from flaretune.models import load
from flaretune.service import answering, server


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
def test_its_number_format_is_one_for_all_of_its_devices(monkeypatch, device, n_gpus, expected):
    assert answering  # imported before `load` is changed: `setup` imports it, and it what it needs of `load`
    monkeypatch.setattr(server, "check_cuda_with_nvidia_smi", lambda: n_gpus)
    asked, loaded = [], []
    monkeypatch.setattr(load, "resolve_dtype", lambda dtype, *devices: asked.append((dtype, devices)) or "float32")
    monkeypatch.setattr(load, "load_pretrained", lambda *given: loaded.append(given))
    monkeypatch.setattr(server, "_end_with_parent", lambda: None)
    server.AskAPI(ServiceConfig(model_name="m", device=device), "token").setup("cuda:9")  # a worker's own
    assert asked == [("auto", tuple(torch.device(name) for name in expected))]
    assert loaded == [("m", "float32", "cuda:9")]
