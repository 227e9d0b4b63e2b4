"""Memory by clients, with a made-up meter in place of the device's."""

import gc

import pytest
import torch
from measurements import gpu_memory
from measurements.shapes import SHAPES

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def only_new_objects():
    """What is there already is left out of the collector's lists, which take long with torch and NVFlare loaded."""
    gc.freeze()
    yield
    gc.unfreeze()


def tensor_bytes(_device) -> int:
    """Of all parameters that are there: what a model costs, once or for every client."""
    gc.collect()
    return sum(o.nbytes for o in gc.get_objects() if type(o) is torch.nn.Parameter)


@pytest.mark.parametrize("name", ["tiny-masked", "tiny-causal"])
def test_one_model_or_one_for_each(monkeypatch, name):
    monkeypatch.setattr(gpu_memory, "_bytes", tensor_bytes)
    monkeypatch.setattr(gpu_memory, "_mib", lambda n_bytes: n_bytes)
    found = gpu_memory.memory_by_clients(SHAPES[name], CPU, torch.bfloat16, clients=(1, 3))
    one = found["shared"]["1"]
    assert one > 0
    assert found["shared"] == {"1": one, "3": one}
    assert found["copies"] == {"1": one, "3": 3 * one}


def test_copies_that_do_not_fit_are_left_open(monkeypatch):
    room = iter([True, True, True, False])  # one shared, then two copies
    monkeypatch.setattr(gpu_memory, "_fits", lambda model, device: next(room))
    found = gpu_memory.memory_by_clients(SHAPES["tiny-masked"], CPU, torch.bfloat16, clients=(1, 2, 3))
    assert None not in found["shared"].values()
    assert found["copies"]["2"] is not None
    assert found["copies"]["3"] is None
