"""Small adapters and whole models as LP-FL's jobs leave them, made up."""

from __future__ import annotations

import numpy as np

from flaretune.methods.lpfl.artifact import AdapterArtifact
from flaretune.tasks.spec import load_task, task_table

PARTS = ("task", "options", "model", "result")
LAYER = "base_model.model.layers.{}.q_proj.lora_{}.weight"


def an_artifact(**changes) -> AdapterArtifact:
    spec, rng = load_task("sst2"), np.random.default_rng(3)
    shapes = {LAYER.format(layer, part): (2, 6) if part == "A" else (6, 2) for layer in range(2) for part in "AB"}
    parts = {
        "arrays": {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()},
        "adapter_config": {
            "peft_type": "LORA",
            "r": 2,
            "lora_alpha": 4.0,
            "target_modules": ["q_proj"],
            "bias": "none",
        },
        "task": {"name": spec.name, **{k: v for k, v in task_table(spec).items() if k != "source"}},
        "options": {"tuning": "lora", "lora_rank": 2, "lora_alpha": 4.0, "seed": 42},
        "model": {"name": "some/model", "kind": "masked", "hidden_size": 32},
        "result": {"round": 3, "validation_accuracy": 0.75, "test_accuracy": None, "versions": {"python": "3.11.7"}},
    }
    return AdapterArtifact(**{**parts, **changes})


def a_whole_model(**changes) -> AdapterArtifact:
    rng = np.random.default_rng(4)
    shapes = {"embed.weight": (9, 4), "norm.bias": (4,), "conv.weight": (2, 3, 4), "patches.weight": (2, 1, 2, 2)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    options = {**an_artifact().options, "tuning": "full"}
    return an_artifact(**{"arrays": arrays, "adapter_config": None, "options": options, **changes})


def same(a: AdapterArtifact, b: AdapterArtifact) -> bool:
    arrays = {name: (v.shape, v.dtype, v.tobytes()) for name, v in a.arrays.items()}
    return arrays == {name: (v.shape, v.dtype, v.tobytes()) for name, v in b.arrays.items()} and all(
        getattr(a, part) == getattr(b, part) for part in (*PARTS, "adapter_config")
    )
