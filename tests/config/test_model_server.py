"""The options of the language-model service, and of those who ask it."""

from __future__ import annotations

import pytest

from flaretune.config.model_server import ServiceConfig
from flaretune.config.options import build, defaults
from flaretune.errors import UserError
from flaretune.methods.fedbpt.config import FedBPTConfig


def test_what_it_has_in_common_with_a_job_has_the_same_defaults_and_limits():
    names = defaults(ServiceConfig).keys() & defaults(FedBPTConfig).keys()
    assert names == {"model_name", "dtype", "quantize", "device", "batch_size", "cache_mb", "model_server_timeout"}
    job, service = FedBPTConfig(), ServiceConfig()
    assert {name: getattr(service, name) for name in names} == {name: getattr(job, name) for name in names}
    with pytest.raises(UserError, match="--dtype float16: must be one of auto, bfloat16, float32"):
        ServiceConfig(dtype="float16")


def test_it_listens_to_this_machine_alone_unless_told_otherwise():
    assert ServiceConfig().host == "127.0.0.1"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"device": "gpu"}, "--device 'gpu': must be auto, cpu, cuda, or a list"),
        ({"device": "cuda:0,cpu"}, "must be auto, cpu, cuda, or a list"),
        ({"port": 80}, "--port 80: must be at least 1024"),
        ({"host": "example.org"}, "--host example.org: must be one of 127.0.0.1"),
    ],
)
def test_wrong_values_are_one_sentence(options, sentence):
    with pytest.raises(UserError, match=sentence):
        build(ServiceConfig, options)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "cuda:0,cuda:2"])
def test_devices(device):
    assert ServiceConfig(device=device).device == device


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model_server": "127.0.0.1:8765"}, "must be local, or the address of a model server"),
        ({"model_server": "http://127.0.0.1:8765/ask"}, "must be local, or the address"),
        ({"model_server": "http://127.0.0.1:8765", "device": "cpu"}, "are the model server's"),
        ({"model_server": "http://127.0.0.1:8765", "batch_size": 4}, "are the model server's"),
    ],
)
def test_a_job_s_model_is_local_or_at_an_address(options, sentence):
    with pytest.raises(UserError, match=sentence):
        FedBPTConfig(**options)
    assert FedBPTConfig(model_server="https://lm.example.org:8765/").model_server.startswith("https://")
