"""The average of the sites' arrays, against an independent computation."""

from dataclasses import replace

import numpy as np
import pytest

from flaretune.flare.lpfl_average import combine
from flaretune.methods.lpfl.answers import TrainAnswer
from tests.flare.sending import COUNTERS


def average(answers: dict[str, TrainAnswer], round_number: int) -> dict[str, np.ndarray]:
    return combine("mean", {}, answers, round_number)[0]


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


# ---- bounded ----


def ten_sites(n_liars: int):
    """A start, and ten answers near it of sites with 24 to 28 texts; liars send reversed updates, scaled up, and claim
    to have trained on very many."""
    rng = np.random.default_rng(11)
    start = {name: rng.standard_normal((5, 4)).astype(np.float32) for name in ("lora_A", "lora_B")}
    answers = trained({f"site-{i}": (24, i % 5) for i in range(10)})
    for answer in answers.values():
        for name, values in start.items():
            answer.arrays[name] = values + (0.1 * rng.standard_normal(values.shape)).astype(np.float32)
    for i in range(n_liars):
        honest = answers[f"site-{i}"]
        lies = {name: start[name] - 1000 * (values - start[name]) for name, values in honest.arrays.items()}
        answers[f"site-{i}"] = replace(honest, arrays=lies, labelled=10**12)
    return start, answers


def flat(arrays) -> np.ndarray:
    return np.concatenate([arrays[name].reshape(-1).astype(np.float64) for name in ("lora_A", "lora_B")])


def test_honest_sites_are_averaged_as_before_to_the_bit():
    start, answers = ten_sites(0)
    plain, clipped = (combine(aggregation, start, answers, 2) for aggregation in ("mean", "clipped"))
    assert plain[1] == clipped[1] == []
    for name in start:
        assert plain[0][name].tobytes() == clipped[0][name].tobytes()


@pytest.mark.parametrize("n_liars", [1, 2])
def test_liars_move_the_clipped_average_no_further_than_is_said(n_liars):
    start, answers = ten_sites(n_liars)
    liars = [f"site-{i}" for i in range(n_liars)]
    got, limited = combine("clipped", start, answers, 2)
    assert limited == liars
    steps = {site: flat(a.arrays) - flat(start) for site, a in answers.items()}
    lengths = sorted(np.linalg.norm(step) for step in steps.values())
    texts = np.array([answers[s].labelled + answers[s].soft_labelled for s in answers], dtype=np.float64)
    texts = np.minimum(texts, 2 * np.sort(texts)[4])
    limited_steps = [step * (lengths[4] / np.linalg.norm(step) if s in liars else 1) for s, step in steps.items()]
    expected = flat(start) + np.average(limited_steps, axis=0, weights=texts)
    np.testing.assert_allclose(flat(got), expected, atol=1e-6)
    alone = np.average([steps[s] for s in answers if s not in liars], axis=0, weights=texts[n_liars:])
    by_liars = np.linalg.norm(expected - flat(start) - alone * texts[n_liars:].sum() / texts.sum())
    # FACTOR / (M + FACTOR − 1) lengths each, were all the same; the honest ones differ by less than a fifth
    assert by_liars < n_liars * 2 / 11 * lengths[4] * 1.2
    plain, _ = combine("mean", start, answers, 2)
    assert np.linalg.norm(flat(plain) - flat(start)) > 300 * lengths[4]


@pytest.mark.parametrize("n_liars", [0, 1, 2, 4])
def test_the_median_stays_in_the_range_of_the_honest_whatever_is_claimed(n_liars):
    start, answers = ten_sites(n_liars)
    got, limited = combine("median", start, answers, 2)
    assert limited == [f"site-{i}" for i in range(n_liars)]
    everything = np.array([flat(a.arrays) for a in answers.values()])
    np.testing.assert_allclose(flat(got), np.median(everything, axis=0), rtol=1e-6)
    assert np.all(flat(got) >= everything[n_liars:].min(axis=0) - 1e-6)
    assert np.all(flat(got) <= everything[n_liars:].max(axis=0) + 1e-6)
