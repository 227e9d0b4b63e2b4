"""ε by dp-accounting against two computations of our own."""

import math

import numpy as np
import pytest

from flaretune.privacy.accountant import account, epsilon, sentence

CASES = [(1.0, 1), (1.0, 12), (4.0, 12), (0.25, 5), (10.0, 200), (0.6, 30)]


def renyi_epsilon(noise: float, delta: float, releases: int) -> float:
    """Mironov, arXiv 1702.07476, Proposition 7 and Corollary 3; conversion of Canonne et al., 2004.00010, Prop. 12."""
    orders = np.linspace(1.001, 600, 300_000)
    renyi = releases * orders / (2 * noise**2)
    return float(
        np.min(renyi + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)),
    )


def gaussian_delta(noise: float, spent: float, releases: int) -> float:
    """The exact δ at an ε: Balle and Wang, arXiv 1805.06530, Theorem 8; n mechanisms are one of noise / √n."""
    deviation = noise / math.sqrt(releases)
    tail = 0.5 * math.erfc(-(1 / (2 * deviation) - spent * deviation) / math.sqrt(2))
    other = 0.5 * math.erfc((1 / (2 * deviation) + spent * deviation) / math.sqrt(2))
    return tail - math.exp(min(spent, 700.0)) * other


@pytest.mark.parametrize(("noise", "releases"), CASES)
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
def test_epsilon_is_that_of_renyi_composition(noise, releases, delta):
    # dp-accounting looks at some hundred orders only, so that its ε may be a little larger, and never smaller
    best = renyi_epsilon(noise, delta, releases)
    assert best * (1 - 1e-4) <= epsilon(noise, delta, releases) <= best * 1.02


@pytest.mark.parametrize(("noise", "releases"), CASES)
@pytest.mark.parametrize("delta", [1e-3, 1e-5])
def test_epsilon_is_above_the_exact_one_and_near_it(noise, releases, delta):
    spent = epsilon(noise, delta, releases)
    assert gaussian_delta(noise, spent, releases) <= delta
    assert gaussian_delta(noise, 0.75 * spent, releases) > delta


def test_nothing_sent_costs_nothing():
    assert epsilon(1.0, 1e-5, 0) == 0.0


def test_what_is_told():
    assert account({}, 0) is None
    assert account({"dp_noise": 0.0, "dp_clip": 1.0}, 3) is None
    told = account({"dp_noise": 1.5, "dp_clip": 2.0, "dp_public_test": 1}, 4)
    assert told["epsilon"] == pytest.approx(epsilon(1.5, 1e-5, 4), abs=1e-4)
    assert (told["noise_deviation"], told["releases"], told["public_test"]) == (6.0, 4, True)
    assert sentence({**told, "epsilon": 8.25}) == (
        "ε = 8.25, δ = 1e-05 for all that a client sends (all data of one client, replaced by other data), "
        "4 noised results"
    )
