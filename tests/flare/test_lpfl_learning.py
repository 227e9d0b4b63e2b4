"""LP-FL learns: a whole job in this process, with texts whose labels can be told from a word."""

import json

import pytest
from flaretune.flare.lpfl_client import LPFLTasks
from flaretune.flare.lpfl_controller import LPFLController

from flaretune.methods.lpfl.config import LPFLConfig
from tests.flare.federation import federate
from tests.learnable import train_model, write_reviews

pytestmark = pytest.mark.slow


def test_accuracy_rises_from_guessing_to_clearly_above(tmp_path, monkeypatch, as_in_a_job):
    monkeypatch.chdir(tmp_path)
    config = LPFLConfig(
        model_name=str(train_model(tmp_path / "model")),
        dataset=str(write_reviews(tmp_path / "data", n_train=600, n_test=100)),
        dtype="float32",
        k_shot=60,
        unlabelled=90,
        target_modules="all-linear",
        learning_rate=5e-3,
        local_epochs=4,
        eval_clients="all",
    )
    sites = {name: LPFLTasks(config) for name in ("site-1", "site-2", "site-3")}
    federate(LPFLController(num_rounds=6, min_clients=3), sites, tmp_path / "results", monkeypatch)
    summary = json.loads((tmp_path / "results" / "summary.json").read_text(encoding="utf-8"))
    assert summary["zero_shot_accuracy"] < 0.7
    assert summary["test_accuracy"] > 0.9
