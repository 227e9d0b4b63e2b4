"""The average of the sites' arrays, against an independent computation."""

import numpy as np
import pytest

from flaretune.flare.lpfl_average import combine
from flaretune.lpfl.answers import TrainAnswer
from tests.flare.sending import COUNTERS


def average(answers: dict[str, TrainAnswer], round_number: int) -> dict[str, np.ndarray]:
    return combine("plain", {}, answers, round_number)[0]


def trained(sizes: dict[str, tuple[int, int]], seed: int = 5) -> dict[str, TrainAnswer]:
    """Answers with random arrays, by site: (labelled, soft-labelled)."""
    rng = np.random.default_rng(seed)
    return {
        site: TrainAnswer(
            arrays={
                "lora_A": rng.standard_normal((3, 7)).astype(np.float32),
                "lora_B": rng.lognormal(0, 5, size=(6, 3)).astype(np.float32),  # from 1e-5 to 1e5
            },
            labelled=labelled,
            soft_labelled=soft,
            soft_labels_right=None,
            loss=0.5,
            counters=COUNTERS,
            evaluation=None,
        )
        for site, (labelled, soft) in sizes.items()
    }


@pytest.mark.parametrize(
    "sizes",
    [
        {"a": (8, 0), "b": (8, 0)},
        {"a": (1, 0), "b": (16, 40), "c": (3, 997)},
        {"a": (0, 5), "b": (7, 0)},
        {"a": (24, 8)},
        {f"site-{i}": (i + 1, 3 * i) for i in range(20)},
    ],
)
def test_the_average_is_weighted_by_all_texts_trained_on(sizes):
    answers = trained(sizes)
    got = average(answers, 3)
    weights = np.array([labelled + soft for labelled, soft in sizes.values()], dtype=np.float64)
    assert list(got) == ["lora_A", "lora_B"]
    for name, values in got.items():
        stacked = np.array([a.arrays[name] for a in answers.values()], dtype=np.float64)
        expected = np.tensordot(weights / weights.sum(), stacked, axes=1)
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected, rtol=2e-6, atol=1e-7)


def test_the_average_has_equal_bits_for_equal_answers_and_leaves_them_as_they_are():
    sizes = {f"site-{i}": (i + 1, 3 * i) for i in range(7)}
    answers, before = trained(sizes), trained(sizes)
    first, second = average(answers, 1), average(answers, 2)
    third = average(before, 1)
    for name in first:
        assert first[name].tobytes() == second[name].tobytes() == third[name].tobytes()
        for site in sizes:
            assert answers[site].arrays[name].tobytes() == trained(sizes)[site].arrays[name].tobytes()


def test_an_average_of_equal_arrays_is_these():
    answers = trained({"a": (8, 0)})
    answers = {site: answers["a"] for site in "abcd"}
    for name, values in average(answers, 1).items():
        np.testing.assert_array_equal(values, answers["a"].arrays[name])


def test_large_numbers_have_a_finite_average():
    """Each is finite; so is their mean, though not their sum."""
    answers = trained({"a": (8, 16), "b": (24, 0)})
    for answer in answers.values():
        answer.arrays["lora_B"][:] = 3e38
    np.testing.assert_allclose(average(answers, 1)["lora_B"], np.full((6, 3), 3e38), rtol=1e-6)
