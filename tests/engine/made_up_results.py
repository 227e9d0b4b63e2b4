"""Made-up results of clients, and settings such as a client reports."""

from __future__ import annotations

from typing import Any

import numpy as np

from flaretune.config.options import defaults
from flaretune.engine import codec
from flaretune.methods.base import Method
from flaretune.methods.exchanged import InitializeResult
from flaretune.methods.registry import find_method
from flaretune.tasks.evaluation import Counters, Evaluation
from flaretune.tasks.spec import load_task, task_table

CLIENTS = ["hospital-a", "hospital-b"]
COMMON = codec.task(CLIENTS, "", 0, None)
COUNTERS = Counters(queries=41, example_forwards=1312, seconds=3.25, memory_mb=812.5)
EVALUATION = Evaluation(np.array([20, 32]), 17.5, 32, np.array([71, 100]))
FEDBPT, LPFL = find_method("fedbpt"), find_method("lpfl")

LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
SHAPES = {A: (2, 5), B: (4, 2)}


def adapter_arrays() -> dict[str, np.ndarray]:
    """No two numbers are the same, and none is short in binary."""
    a = np.linspace(-1, 1, 10, dtype=np.float32).reshape(2, 5) / 3
    return {A: a, B: np.geomspace(1e-6, 0.7, 8, dtype=np.float32).reshape(4, 2)}


def settings_of(method: Method, **options: Any) -> dict[str, Any]:
    """What a client of a method says its settings are, with these options besides the defaults."""
    config = method.client_config
    told = {name: value for name, value in defaults(config).items() if name not in config.client_options}
    task = {"name": "sst2", **{key: value for key, value in task_table(load_task("sst2")).items() if key != "source"}}
    settings = {
        "method": method.title,
        "options": {**told, **options},
        "task": task,
        "model": {"name": "m", "kind": "masked", "hidden_size": 32},
    }
    if method is not LPFL:
        return settings
    shapes = {name: list(shape) for name, shape in SHAPES.items()}
    return {**settings, "adapter": {"r": 2}, "initial": shapes, "parameters": shapes}


def an_initialize_result(method: Method = FEDBPT, **options: Any) -> InitializeResult:
    arrays = adapter_arrays() if method is LPFL else {}
    settings = settings_of(method, **options)
    return InitializeResult(settings, 8, np.array([51, 100]), EVALUATION, COUNTERS, arrays=arrays)
