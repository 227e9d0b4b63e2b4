from __future__ import annotations

from pathlib import Path

import pytest

from flaretune.methods.lpfl.artifact import AdapterArtifact, save_adapter
from flaretune.methods.registry import find_method
from tests.engine.in_process import run_job
from tests.learnable import write_reviews
from tests.methods.lpfl.made_up_adapters import a_whole_model, an_artifact


@pytest.fixture(params=["lora", "full"])
def artifact(request) -> AdapterArtifact:
    return {"lora": an_artifact, "full": a_whole_model}[request.param]()


@pytest.fixture
def folder(tmp_path, artifact) -> Path:
    save_adapter(artifact, tmp_path / "best_adapter")
    return tmp_path / "best_adapter"


@pytest.fixture
def lora(tmp_path) -> Path:
    save_adapter(an_artifact(), tmp_path / "lora")
    return tmp_path / "lora"


CLIENTS = ["site-1", "site-2", "site-3"]


@pytest.fixture(scope="session")
def folders(roberta, llama, tmp_path_factory):
    """Folders of two tiny models and of 150 training and 30 test texts: only to be read."""
    models = {"roberta": str(roberta), "llama": str(llama)}
    return {**models, "data": str(write_reviews(tmp_path_factory.mktemp("few"), n_train=150, n_test=30))}


@pytest.fixture
def lpfl_job(folders, tmp_path):
    """Run a job of LP-FL in this process; returns what was said, and the folder of its results."""
    method = find_method("lpfl")

    def run(name="results", *, rounds=2, client_options=None, checkpoint="", init_adapter="", clients=CLIENTS, **more):
        server = {n: more.pop(n) for n in ("min_clients", "aggregation") if n in more}
        job = {n: more.pop(n) for n in ("change", "anew") if n in more}
        common = {
            "model_name": folders["roberta"],
            "dataset": folders["data"],
            "k_shot": 9,
            "unlabelled": 36,
            "lora_rank": 2,
            "local_epochs": 1,
            "local_steps": 2,
            "dtype": "float32",
            "eval_clients": "all",
            **({"state_dir": f"{checkpoint}/clients"} if checkpoint else {}),
            **more,
        }
        configs = {c: method.client_config(**{**common, **(client_options or {}).get(c, {})}) for c in clients}
        server |= {"checkpoint": str(checkpoint), "init_adapter": str(init_adapter), "num_rounds": rounds}
        return run_job(method, configs, tmp_path / name, **job, **server), tmp_path / name

    return run
