"""FedBPT learns: whole jobs in this process, with texts whose labels can be told from a word."""

import pytest

from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.registry import find_method
from tests.engine.in_process import run_job
from tests.jobs_for_tests import read_summary
from tests.learnable import train_model, write_reviews

pytestmark = pytest.mark.slow

CLIENTS = ["site-1", "site-2", "site-3"]


@pytest.fixture(scope="module")
def model_and_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learnable")
    return {"model_name": str(train_model(folder / "model")), "dataset": str(write_reviews(folder / "data"))}


@pytest.fixture
def job(model_and_data, tmp_path):
    """Run a job; returns test accuracy at the start and after each round."""

    def run(rounds, **changes):
        options = {
            "dtype": "float32",
            "n_prompt_tokens": 3,
            "intrinsic_dim": 40,
            "alpha": 15.0,
            "k_shot": 24,
            "local_iter": 6,
            "local_popsize": 6,
            "eval_clients": "all",
            "seed": 11,
        }
        config = FedBPTConfig(**{**model_and_data, **options, **changes})
        server = {"num_rounds": rounds, "covariance": "diagonal", "aggregation": "mean"}
        told = run_job(find_method("fedbpt"), dict.fromkeys(CLIENTS, config), tmp_path / "results", **server)
        assert (told.failure, told.client_failures) == ("", {})
        return [r["accuracy"] for r in read_summary(tmp_path / "results")["rounds"]]

    return run


@pytest.mark.parametrize("mode", ["add", "cat"])
def test_accuracy_rises_from_chance_to_clearly_above(job, mode):
    accuracy = job(rounds=12, cat_or_add=mode)
    assert accuracy[0] < 0.7
    assert max(accuracy) > 0.9


@pytest.mark.parametrize(
    "changes", [{"perturb": 1}, {"iid": 0, "alpha_dir": 0.8}, {"loss_type": "hinge"}, {"max_norm": "15:20"}]
)
def test_it_learns_with_the_other_options_too(job, changes):
    accuracy = job(rounds=10, **changes)
    assert max(accuracy[1:]) > accuracy[0] + 0.15
