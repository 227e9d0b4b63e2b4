"""Batch calibration: the model's preference for a class, divided out."""

import numpy as np
import pytest

from flaretune.errors import UserError
from flaretune.methods.artifact_parts import saved_prior
from flaretune.tasks import calibration


def test_the_prior_is_the_geometric_mean_of_the_probabilities_over_the_texts_of_all_clients():
    thirds, quarters = np.log([[2.0, 1.0]]), np.log([[3.0, 1.0], [1.0, 3.0]])
    clients = [calibration.log_prob_sums(thirds), calibration.log_prob_sums(quarters + 1000.0)]
    assert [client.n_texts for client in clients] == [1, 2]
    np.testing.assert_allclose(np.exp(clients[0].sums), [2 / 3, 1 / 3])
    np.testing.assert_allclose(np.exp(clients[1].sums), [3 / 16, 3 / 16])
    odds = (2 * 3 * (1 / 3)) ** (1 / 3)  # of the first class in the three texts
    np.testing.assert_allclose(calibration.prior(clients, [1, 1]), [odds / (1 + odds), 1 / (1 + odds)])
    odds = (2**4 * 3 * (1 / 3)) ** (1 / 6)  # the first client's text counts as four
    np.testing.assert_allclose(calibration.prior(clients, [4, 1]), [odds / (1 + odds), 1 / (1 + odds)])


def test_with_two_classes_the_mean_of_the_log_odds_is_subtracted():
    logits = np.random.default_rng(5).normal([3.0, 0.0], 2.0, (50, 2))
    offset = calibration.offset(calibration.prior([calibration.log_prob_sums(logits)], [1]))
    log_odds = logits[:, 0] - logits[:, 1]
    np.testing.assert_allclose(offset[0] - offset[1], -log_odds.mean())


def test_no_text_outweighs_all_others():
    told = calibration.log_prob_sums(np.array([[0.0, -1000.0], [0.0, 0.0]]))
    np.testing.assert_allclose(told.sums, np.log([0.5, 0.5 * 1e-6]))


@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0, 1000.0])
def test_what_texts_can_have_is_plausible(scale):
    logits = np.random.default_rng(7).standard_normal((1000, 4)) * scale
    assert calibration.log_prob_sums(logits).is_plausible()


@pytest.mark.parametrize(
    ("sums", "n_texts"),
    [
        ([-1.0, -1.0], 0),  # of no text
        ([-2.0, 0.1], 2),  # a probability above 1
        ([-1.0, -1.0], 2),  # geometric means of 0.61 and 0.61
        ([-28.0, -0.1], 2),  # a mean below log 1e-6
    ],
)
def test_what_no_texts_can_have_is_not(sums, n_texts):
    assert not calibration.LogProbSums(np.array(sums), n_texts).is_plausible()


def test_calibrated_probabilities_are_those_divided_by_the_prior():
    logits, prior = np.log([[0.7, 0.2, 0.1], [0.6, 0.1, 0.3]]), np.array([0.5, 0.25, 0.25])
    powers = np.exp(logits + calibration.offset(prior))
    expected = np.array([[0.7 / 0.5, 0.2 / 0.25, 0.1 / 0.25], [0.6 / 0.5, 0.1 / 0.25, 0.3 / 0.25]])
    np.testing.assert_allclose(powers, expected)
    assert powers.argmax(axis=1).tolist() == [0, 0]
    assert np.all(np.isfinite(calibration.offset(np.array([1.0, 0.0]))))


def test_a_saved_prior_is_read_back_and_none_is_none():
    assert saved_prior({"round": 3}, 2) is None
    assert saved_prior({"prior": [0.25, 0.75]}, 2).tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    "wrong", [[0.5], [0.5, 0.25, 0.25], [1.0, 0.0], [1.0, "x"], [1.0, float("nan")], 0.5, None, [[1, 2]]]
)
def test_a_saved_prior_that_is_none_is_refused(wrong):
    with pytest.raises(UserError, match="is not a number above 0 for each of 2 classes"):
        saved_prior({"prior": wrong}, 2)


@pytest.mark.parametrize("logit", [np.nan, -np.inf])
def test_logits_that_are_not_finite_have_no_sums(logit):
    with pytest.raises(FloatingPointError, match="1 of 2 texts"):
        calibration.log_prob_sums(np.array([[logit, 1.0], [0.0, 0.0]]))
