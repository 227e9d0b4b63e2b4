"""A small job of each method on a tiny model, in the test's own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flaretune.methods.registry import find_method
from tests.engine.in_process import Told, run_job
from tests.learnable import write_reviews

CLIENTS = ["site-1", "site-2"]
ROUNDS = 2
JOBS = {
    "fedbpt": {"n_prompt_tokens": 3, "intrinsic_dim": 6, "local_iter": 2},
    "lpfl": {"unlabelled": 20, "lora_rank": 2, "local_epochs": 1, "local_steps": 2},
}


def run_small_job(name: str, model: Path, folder: Path, results: str, **more: Any) -> Told:
    """Run a job of two rounds; its results are in ``folder / results``.

    Args:
        name: of the method.
        model: folder of the model.
        folder: where the data lies, or is to be written.
        results: name of the folder of results.
        more: see `run_job`.
    """
    data = folder / "data"
    if not data.exists():
        write_reviews(data, n_train=60, n_test=20)
    method = find_method(name)
    options = {"model_name": str(model), "dataset": str(data), "k_shot": 6, "dtype": "float32", "eval_clients": "all"}
    config = method.client_config(**options, **JOBS[name])
    return run_job(method, dict.fromkeys(CLIENTS, config), folder / results, num_rounds=ROUNDS, **more)
