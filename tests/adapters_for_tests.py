"""Adapters such as a job of LP-FL leaves, with random numbers where it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flaretune.config.options import as_dict, build
from flaretune.methods.lpfl.artifact import AdapterArtifact
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.models.lora import TuneSettings
from flaretune.models.tuned import open_tuned_model
from flaretune.tasks.spec import TaskSpec, task_table

LOCAL = ("dataset", "data_path", "unlabelled_path", "task_name", "task_file", "model_name", "device", "dtype")
LOCAL += ("batch_size", "gradient_checkpointing", "client_rank")


def random_adapter(model: Path, spec: TaskSpec, **options) -> AdapterArtifact:
    """Every array of the model's new adapter, or with ``tuning="full"`` of the model, moved at random.

    Args:
        model: folder.
        spec: the task.
        options: of `LPFLConfig`.
    """
    values = as_dict(LPFLConfig(unlabelled_path="at the client.csv", **options))
    tuned = open_tuned_model(spec, str(model), build(TuneSettings, values), dtype="float32", device="cpu")
    rng = np.random.default_rng(11)
    arrays = {
        name: values + rng.normal(scale=0.2, size=values.shape).astype(np.float32)
        for name, values in (tuned.initial or tuned.parameters.arrays()).items()
    }
    task = {"name": spec.name, **{key: value for key, value in task_table(spec).items() if key != "source"}}
    described = {"name": str(model), "kind": tuned.pretrained.kind, "hidden_size": tuned.hidden_size}
    agreed = {name: value for name, value in values.items() if name not in LOCAL}
    return AdapterArtifact(
        arrays, tuned.adapter_config, task=task, options=agreed, model=described, result={"round": 2}
    )
