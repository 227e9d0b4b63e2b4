"""LP-FL learns: a whole job in this process, with texts whose labels can be told from a word."""

import pytest

from tests.jobs_for_tests import read_summary
from tests.learnable import train_model, write_reviews

pytestmark = pytest.mark.slow


def test_accuracy_rises_from_guessing_to_clearly_above(lpfl_job, tmp_path):
    _, folder = lpfl_job(
        rounds=6,
        min_clients=3,
        model_name=str(train_model(tmp_path / "model")),
        dataset=str(write_reviews(tmp_path / "data", n_train=600, n_test=100)),
        k_shot=60,
        unlabelled=90,
        target_modules="all-linear",
        learning_rate=5e-3,
        local_epochs=4,
        local_steps=8,
        lora_rank=8,
    )
    summary = read_summary(folder)
    assert summary["zero_shot_accuracy"] < 0.7
    assert summary["test_accuracy"] > 0.9
