"""Batch calibration: the model's preference for a class, divided out."""

import numpy as np
import pytest

from flaretune.errors import UserError
from flaretune.methods.artifact_parts import saved_prior
from flaretune.tasks import calibration


def test_the_prior_is_the_mean_probability_over_the_texts_of_all_clients():
    thirds, quarters = np.log([[2.0, 1.0]]), np.log([[3.0, 1.0], [1.0, 3.0]])
    masses = [calibration.mass(thirds), calibration.mass(quarters + 1000.0)]
    np.testing.assert_allclose(masses, [[2 / 3, 1 / 3], [1.0, 1.0]])
    np.testing.assert_allclose(calibration.prior(masses), [(2 / 3 + 1) / 3, (1 / 3 + 1) / 3])


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
