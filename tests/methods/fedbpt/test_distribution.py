import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaretune.errors import UserError
from flaretune.methods.fedbpt.distribution import Distribution, pack, unpack


def a_distribution(d: int, seed: int = 0) -> Distribution:
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((d, d)) / np.sqrt(d)
    return Distribution(rng.standard_normal(d), 0.75, factor @ factor.T + np.eye(d))


@given(st.integers(1, 12), st.integers(0, 5))
def test_full_form_gives_back_mean_step_size_and_covariance(d, seed):
    sent = a_distribution(d, seed)
    got = unpack(pack(sent, "full"))
    np.testing.assert_allclose(got.mean, sent.mean, rtol=1e-6)
    np.testing.assert_allclose(got.covariance_matrix(), sent.covariance, rtol=1e-6)
    assert np.array_equal(got.covariance_matrix(), got.covariance_matrix().T)
    assert got.sigma == pytest.approx(0.75)


def test_smaller_forms_give_back_what_they_keep():
    sent = a_distribution(6)
    diagonal = unpack(pack(sent, "diagonal"))
    np.testing.assert_allclose(diagonal.covariance_matrix(), np.diag(np.diag(sent.covariance)), rtol=1e-6)
    assert np.array_equal(unpack(pack(sent, "identity")).covariance_matrix(), np.eye(6))


def test_one_dimension_is_read_the_same_from_both_forms():
    sent = Distribution(np.array([0.5]), 1.0, np.array([[4.0]]))
    for form in ("full", "diagonal"):
        assert unpack(pack(sent, form)).covariance_matrix().tolist() == [[4.0]]


@pytest.mark.parametrize(("form", "numbers"), [("full", 500 * 501 // 2), ("diagonal", 500), ("identity", 0)])
def test_numbers_that_travel_at_500_dimensions(form, numbers):
    arrays = pack(Distribution(np.zeros(500), 1.0), form)
    assert arrays["mean"].nbytes + arrays["sigma"].nbytes == 4 * 501
    assert sum(a.size for name, a in arrays.items() if name == "covariance") == numbers
    assert all(a.dtype == np.float32 for a in arrays.values())


def test_unknown_form_is_refused():
    with pytest.raises(UserError, match="'triangle' is unknown: use one of full, diagonal, identity"):
        pack(Distribution(np.zeros(3), 1.0), "triangle")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mean", None, "'mean' is missing"),
        ("mean", np.zeros((2, 2)), r"shape \(2, 2\)"),
        ("mean", np.array([1.0, np.nan, 0.0]), "not finite"),
        ("mean", np.array(["a", "b", "c"]), "expected numbers"),
        ("sigma", np.array([0.0]), "positive"),
        ("sigma", np.array([1.0, 1.0]), "one positive number"),
        ("covariance", np.ones(4), r"shape \(4,\), expected \(3,\) for a diagonal or \(6,\)"),
        ("covariance", np.array([1.0, -1.0, 1.0]), "variance of -1"),
        ("covariance", np.array([1.0, np.inf, 1.0]), "not finite"),
    ],
)
def test_arrays_that_are_no_distribution_are_refused(name, value, message):
    arrays = pack(a_distribution(3), "full")
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    with pytest.raises(ValueError, match=message):
        unpack(arrays)
