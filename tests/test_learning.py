"""FedBPT end to end without NVFlare's processes: it learns, and equal seeds give equal runs."""

import numpy as np
import pytest
from flaretune.flare.fedbpt_client import set_up
from flaretune.methods.fedbpt.server_search import ServerSearch

from flaretune.flare import fedbpt_messages
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.tasks.metrics.registry import find_metric
from tests.learnable import train_model, write_reviews

pytestmark = pytest.mark.slow

CLIENTS = ["site-1", "site-2", "site-3"]


@pytest.fixture(scope="module")
def model_and_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learnable")
    return str(train_model(folder / "model")), str(write_reviews(folder / "data"))


def config(model_and_data, **changes) -> FedBPTConfig:
    model, data = model_and_data
    options = {
        "task_name": "sst2",
        "model_name": model,
        "dataset": data,
        "dtype": "float32",
        "n_prompt_tokens": 3,
        "intrinsic_dim": 40,
        "alpha": 15.0,
        "k_shot": 24,
        "local_iter": 6,
        "local_popsize": 6,
        "local_seeds": "round",
        "eval_clients": "all",
        "zero_lm_bias": 0,
        "seed": 11,
    }
    return FedBPTConfig(**{**options, **changes})


def federate(site_config: FedBPTConfig, rounds: int) -> tuple[list[float], np.ndarray]:
    """Test accuracy at the start and after each round, and the final mean; every message as it would travel."""
    clients = [set_up(site_config, name, CLIENTS) for name in CLIENTS]
    accuracy = [_accuracy([answer.evaluation for _, answer in clients])]
    limits = {"norm_limit": site_config.prompt_norm_threshold} if site_config.norm_prompt else {}
    limits["norm_limit_upper"] = site_config.prompt_norm_threshold_upper
    search = ServerSearch(site_config.intrinsic_dim, site_config.sigma, site_config.popsize, seed=1, **limits)
    for round_number in range(1, rounds + 1):
        task = fedbpt_messages.search_task(
            CLIENTS, search.distribution, "diagonal", round_number, False, search.norm_limit
        )
        answers = []
        for client, _ in clients:
            reply = fedbpt_messages.search_answer(client.search(*fedbpt_messages.read_search_task(task)))
            answers.append(fedbpt_messages.read_search_answer(reply, site_config.intrinsic_dim, None).result)
        search.update(
            np.array([a.mean for a in answers]),
            np.array([a.fitness for a in answers]),
            np.array([a.sigma_square_sum for a in answers]),
        )
        accuracy.append(_accuracy([client.evaluate(search.distribution.mean).evaluation for client, _ in clients]))
    return accuracy, search.distribution.mean


def _accuracy(evaluations) -> float:
    return find_metric("accuracy").value(np.sum([e.test for e in evaluations], axis=0))


@pytest.mark.parametrize("mode", ["add", "cat"])
def test_accuracy_rises_from_chance_to_clearly_above(model_and_data, mode):
    accuracy, _ = federate(config(model_and_data, cat_or_add=mode), rounds=12)
    assert accuracy[0] < 0.7
    assert max(accuracy) > 0.9


@pytest.mark.parametrize(
    "changes",
    [{"perturb": 1}, {"iid": 0, "alpha_dir": 0.8}, {"loss_type": "hinge"}, {"local_seeds": "client", "norm_prompt": 1}],
)
def test_it_learns_with_the_other_options_too(model_and_data, changes):
    accuracy, _ = federate(config(model_and_data, **changes), rounds=10)
    assert max(accuracy[1:]) > accuracy[0] + 0.15


def test_equal_seeds_give_equal_runs_and_others_do_not(model_and_data):
    runs = [federate(config(model_and_data, perturb=1, seed=seed), rounds=2) for seed in (11, 11, 12)]
    assert runs[0][0] == runs[1][0]
    np.testing.assert_array_equal(runs[0][1], runs[1][1])
    assert not np.array_equal(runs[0][1], runs[2][1])
