"""A client with a black box whose logits are known: a point's first coordinate is the logit of class 1."""

import numpy as np
import pytest

from flaretune.methods.client_data import Labelled
from flaretune.methods.exchanged import FitRequest
from flaretune.methods.fedbpt.client import FedBPTClient
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.fedbpt.distribution import Distribution, pack
from flaretune.models.prompt_settings import ModelFacts
from flaretune.seeding import derive_seed
from tests.tasks_for_tests import review_task

LABELS = np.array([1, 0, 1, 1])


class FirstCoordinate:
    """Gives logits (0, z[0] + offset of the text set) for every text."""

    def __init__(self):
        self.example_forwards = 0
        self.seen = []

    def label_logits(self, points, texts):
        n, offset = texts
        self.example_forwards += len(points) * n
        self.seen.append((points.copy(), offset))
        logits = np.zeros((len(points), n, 2), dtype=np.float32)
        logits[:, :, 1] = points[:, :1] + offset
        return logits


def a_client(black_box, perturbed=None, name="site-1", zero_shot=None, **options):
    config = FedBPTConfig(**{"local_iter": 3, "local_popsize": 5, "intrinsic_dim": 3, "seed": 5, **options})
    data = Labelled((4, 0.0), LABELS)
    facts = ModelFacts("none", "masked", "none", 8, "float32")
    return FedBPTClient(
        config, name, review_task(), facts, black_box, data, data, data, perturbed, lambda: zero_shot
    )  # fmt: skip


def a_request(round_number: int, evaluate=False, sigma=1.0, **numbers) -> FitRequest:
    return FitRequest(round_number, pack(Distribution(np.zeros(3), sigma), "identity"), numbers, evaluate)


def test_evaluation_counts_correct_predictions_and_sums_the_loss():
    evaluation = a_client(FirstCoordinate()).evaluate({"mean": np.array([2.0, 0.0, 0.0])}).evaluation
    assert evaluation.validation.tolist() == evaluation.test.tolist() == [3, 4]  # all called class 1
    low, high = np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))
    assert evaluation.validation_loss_sum == pytest.approx(3 * low + high, rel=1e-6)
    assert evaluation.n_validation == 4


def test_initialize_evaluates_the_initial_prompt_and_counts_the_zero_shot_predictions():
    zero_shot = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    result = a_client(FirstCoordinate(), zero_shot=zero_shot).initialize()
    assert result.zero_shot.tolist() == [3, 4]
    assert result.n_train == 4
    assert result.evaluation.validation.tolist() == [1, 4]  # equal logits: class 0


def test_fit_reports_its_own_cost_and_evaluates_only_if_it_is_to():
    black_box = FirstCoordinate()
    client = a_client(black_box)
    result = client.fit(a_request(1))
    assert result.evaluation is None
    assert result.counters.queries == 3 * 5 + 1
    assert result.counters.example_forwards == 4 * 16 == black_box.example_forwards
    result = client.fit(a_request(2, evaluate=True))
    assert result.evaluation.validation.tolist() == [1, 4]
    assert result.counters.example_forwards == 4 * 16


def test_fitness_divides_by_the_loss_on_texts_perturbed_anew_each_round():
    seeds = []

    def perturbed(seed):
        seeds.append(seed)
        return (4, 1.0)

    client = a_client(FirstCoordinate(), perturbed, perturb=1)
    result = client.fit(a_request(7))

    def mean_loss(logit):  # three of four texts are of class 1
        return (3 * np.log1p(np.exp(-logit)) + np.log1p(np.exp(logit))) / 4

    first = float(result.arrays["mean"][0])
    expected = mean_loss(first) / mean_loss(first + 1.0)
    assert result.arrays["fitness"][0] == pytest.approx(expected, rel=1e-5)
    client.fit(a_request(8))
    assert seeds == [derive_seed(5, "perturb", 7, "site-1"), derive_seed(5, "perturb", 8, "site-1")]


def test_directions_are_new_each_round_and_the_same_at_all_clients():
    def first_points(name, round_number, **options):
        black_box = FirstCoordinate()
        a_client(black_box, name=name, **options).fit(a_request(round_number))
        return black_box.seen[0][0]

    reference = first_points("site-1", 1)
    assert np.array_equal(reference, first_points("site-1", 1))
    assert np.array_equal(reference, first_points("site-2", 1))
    assert not np.array_equal(reference, first_points("site-1", 2))
    assert not np.array_equal(reference, first_points("site-1", 1, seed=6))


@pytest.mark.parametrize("limit", [2.0, 3.5])
def test_points_are_no_longer_than_the_server_says(limit):
    black_box = FirstCoordinate()
    a_client(black_box).fit(a_request(1, sigma=50.0, norm_limit=limit))
    assert max(np.linalg.norm(points, axis=1).max() for points, _ in black_box.seen) == pytest.approx(limit)
