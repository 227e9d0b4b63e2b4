"""A site with a black box whose answers are known: a point's first coordinate is the logit of class 1."""

import numpy as np
import pytest

from flaretune.methods.fedbpt.client import FedBPTSite, Labelled, SearchSettings
from flaretune.methods.fedbpt.distribution import Distribution
from flaretune.seeding import derive_seed
from tests.tasks_for_tests import review_task

LABELS = np.array([1, 0, 1, 1])


class FirstCoordinate:
    """Answers logits (0, z[0] + offset of the text set) for every text."""

    def __init__(self):
        self.example_forwards = 0
        self.asked = []

    def label_logits(self, points, texts):
        n, offset = texts
        self.example_forwards += len(points) * n
        self.asked.append((points.copy(), offset))
        logits = np.zeros((len(points), n, 2), dtype=np.float32)
        logits[:, :, 1] = points[:, :1] + offset
        return logits


def a_site(black_box, perturbed=None, **changes):
    options = {
        "local_iter": 3,
        "popsize": 5,
        "local_seeds": "fixed",
        "loss_type": "ce",
        "bound": 0.0,
        "intrinsic_dim": 3,
        "seed": 5,
    }
    data = Labelled((4, 0.0), LABELS)
    settings = SearchSettings(**{**options, **changes})
    return FedBPTSite("site-1", review_task(), black_box, data, data, data, perturbed, settings)


def test_evaluation_counts_right_answers_and_sums_the_loss():
    evaluation = a_site(FirstCoordinate()).evaluate(np.array([2.0, 0.0, 0.0])).evaluation
    assert evaluation.validation.tolist() == evaluation.test.tolist() == [3, 4]  # all called class 1
    right, wrong = np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))
    assert evaluation.validation_loss_sum == pytest.approx(3 * right + wrong, rel=1e-6)
    assert evaluation.n_validation == 4


def test_setup_evaluates_the_initial_prompt_and_counts_the_zero_shot_answers():
    zero_shot = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    answer = a_site(FirstCoordinate()).setup({"options": {}}, zero_shot)
    assert answer.zero_shot.tolist() == [3, 4]
    assert answer.n_train == 4
    assert answer.evaluation.validation.tolist() == [1, 4]  # equal logits: class 0


def test_search_reports_its_own_cost_and_evaluates_only_if_asked():
    black_box = FirstCoordinate()
    site, start = a_site(black_box), Distribution(np.zeros(3), 1.0)
    answer = site.search(start, 1, evaluate=False)
    assert answer.evaluation is None
    assert answer.counters.queries == 3 * 5 + 1
    assert answer.counters.example_forwards == 4 * 16 == black_box.example_forwards
    answer = site.search(start, 2, evaluate=True)
    assert answer.evaluation.validation.tolist() == [1, 4]
    assert answer.counters.example_forwards == 4 * 16


def test_fitness_divides_by_the_loss_on_texts_perturbed_anew_each_round():
    seeds = []

    def perturbed(seed):
        seeds.append(seed)
        return (4, 1.0)

    site = a_site(FirstCoordinate(), perturbed)
    fitness = site._objective(7)(np.zeros((1, 3)))[0]
    plain = np.log(2.0)
    other = (3 * np.log1p(np.exp(-1.0)) + np.log1p(np.exp(1.0))) / 4
    assert fitness == pytest.approx(plain / other, rel=1e-6)
    site._objective(8)
    assert seeds == [derive_seed(5, "perturb", 7, "site-1"), derive_seed(5, "perturb", 8, "site-1")]


@pytest.mark.parametrize(("local_seeds", "same_round", "same_site"), [("fixed", 1, 1), ("round", 0, 1), ("site", 0, 0)])
def test_local_seeds(local_seeds, same_round, same_site):
    def first_points(name, round_number):
        black_box = FirstCoordinate()
        site = a_site(black_box, local_seeds=local_seeds)
        site._name = name
        site.search(Distribution(np.zeros(3), 1.0), round_number, evaluate=False)
        return black_box.asked[0][0]

    reference = first_points("site-1", 1)
    assert np.array_equal(reference, first_points("site-1", 1))
    assert np.array_equal(reference, first_points("site-1", 2)) == bool(same_round)
    assert np.array_equal(reference, first_points("site-2", 1)) == bool(same_site)


@pytest.mark.parametrize("limit", [2.0, 3.5])
def test_points_are_no_longer_than_the_server_says(limit):
    black_box = FirstCoordinate()
    a_site(black_box).search(Distribution(np.zeros(3), 50.0), 1, evaluate=False, norm_limit=limit)
    assert max(np.linalg.norm(points, axis=1).max() for points, _ in black_box.asked) == pytest.approx(limit)
