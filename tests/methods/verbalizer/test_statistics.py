"""Sums over texts: what they are, that they add up, and what is refused."""

import numpy as np
import pytest

from flaretune.methods.verbalizer.statistics import (
    added,
    gram_sums,
    one_against_rest,
    read_gram_sums,
    read_word_statistics,
    scaled,
    word_statistics,
)

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(7, 3)).astype(np.float32) - 5
LABELS = np.array([0, 1, 1, 2, 0, 1, 2])


def test_word_statistics_are_what_they_are_called():
    found = word_statistics(FEATURES, LABELS, 4)
    assert found.counts.tolist() == [2, 3, 2, 0]
    for class_id in range(4):
        mine = FEATURES[class_id == LABELS].astype(np.float64)
        np.testing.assert_allclose(found.sums[class_id], mine.sum(axis=0))
    np.testing.assert_allclose(found.squares, [sum(float(x) ** 2 for x in column) for column in FEATURES.T])


def test_one_class_against_the_rest_is_what_two_classes_would_be():
    for class_id in range(3):
        found = one_against_rest(word_statistics(FEATURES, LABELS, 3), class_id)
        expected = word_statistics(FEATURES, (class_id != LABELS).astype(int), 2)
        for name, values in expected.arrays().items():
            np.testing.assert_allclose(found.arrays()[name], values)


def test_gram_sums_are_what_they_are_called():
    found = gram_sums(FEATURES, LABELS, 3)
    outer = sum(np.outer(x.astype(np.float64), x.astype(np.float64)) for x in FEATURES)
    np.testing.assert_allclose(found.gram, outer)
    expected = np.zeros((3, 3))
    for x, label in zip(FEATURES, LABELS, strict=True):
        expected[:, label] += x
    np.testing.assert_allclose(found.cross, expected)
    assert found.n == 7


@pytest.mark.parametrize("cut", [0, 1, 4, 7])
def test_sums_of_parts_add_up_to_those_of_all_texts_also_where_a_part_has_none(cut):
    parts = [(FEATURES[:cut], LABELS[:cut]), (FEATURES[cut:], LABELS[cut:])]
    gram = added([gram_sums(x, y, 3) for x, y in parts])
    words = added([word_statistics(x, y, 3) for x, y in parts])
    np.testing.assert_allclose(gram.gram, gram_sums(FEATURES, LABELS, 3).gram)
    np.testing.assert_allclose(words.sums, word_statistics(FEATURES, LABELS, 3).sums)


def test_scaled_sums_are_those_of_texts_that_count_less():
    half = scaled(gram_sums(FEATURES, LABELS, 3), 0.5)
    assert half.n == 3.5
    np.testing.assert_allclose(half.gram, gram_sums(FEATURES, LABELS, 3).gram / 2)


@pytest.mark.parametrize("n", [0, 1, 7])
def test_what_is_sent_is_read_back(n):
    gram, words = gram_sums(FEATURES[:n], LABELS[:n], 3), word_statistics(FEATURES[:n], LABELS[:n], 3)
    np.testing.assert_array_equal(read_gram_sums(gram.arrays(), 3, 3, most=7).gram, gram.gram)
    np.testing.assert_array_equal(read_gram_sums(gram.arrays(), 3, 3, most=7).cross, gram.cross)
    np.testing.assert_array_equal(read_word_statistics(words.arrays(), 3, 3, most=7).squares, words.squares)


def test_a_gram_matrix_travels_as_its_upper_triangle_and_comes_back_symmetric():
    sent = gram_sums(FEATURES, LABELS, 3).arrays()
    assert sent["gram"].shape == (6,)
    read = read_gram_sums(sent, 3, 3, most=7).gram
    np.testing.assert_array_equal(read, read.T)


def changed(arrays, name, change):
    arrays = {n: values.copy() for n, values in arrays.items()}
    arrays[name] = change(arrays[name])
    return arrays


def put(place, value):
    def change(values):
        values.flat[place] = value
        return values

    return change


WRONG_GRAM = {
    "not finite": ("gram", put(1, np.nan)),
    "infinite": ("cross", put(0, np.inf)),
    "the whole matrix": ("gram", lambda _: np.zeros((3, 3))),
    "another size": ("cross", lambda values: values[:2]),
    "texts": ("gram", lambda values: values.astype(str)),
    "so large that sums overflow": ("gram", put(0, 1e300)),
    "a negative square": ("gram", put(0, -1.0)),
    "a product above its squares": ("gram", put(1, 1e6)),
    "a negative count": ("counts", put(0, -1.0)),
    "half a text": ("counts", put(0, 1.5)),
    "more texts than there can be": ("counts", put(0, 100.0)),
    "sums without texts": ("counts", put(0, 0.0)),
    "sums that the squares cannot have": ("cross", put(0, 1e4)),
}


@pytest.mark.parametrize(("name", "change"), WRONG_GRAM.values(), ids=WRONG_GRAM)
def test_gram_sums_that_cannot_be_are_refused(name, change):
    arrays = changed(gram_sums(FEATURES, LABELS, 3).arrays(), name, change)
    with pytest.raises(ValueError, match=r"array|a class without texts"):
        read_gram_sums(arrays, 3, 3, most=7)


WRONG_WORDS = {
    "not finite": ("sums", put(1, np.nan)),
    "another size": ("squares", lambda values: values[:2]),
    "squares below the sums": ("squares", put(0, 0.0)),
    "a negative count": ("counts", put(1, -3.0)),
    "sums without texts": ("counts", put(2, 0.0)),
}


@pytest.mark.parametrize(("name", "change"), WRONG_WORDS.values(), ids=WRONG_WORDS)
def test_word_statistics_that_cannot_be_are_refused(name, change):
    arrays = changed(word_statistics(FEATURES, LABELS, 3).arrays(), name, change)
    with pytest.raises(ValueError, match=r"array|a class without texts"):
        read_word_statistics(arrays, 3, 3, most=7)


def test_an_array_too_many_or_too_few_is_refused():
    arrays = gram_sums(FEATURES, LABELS, 3).arrays()
    with pytest.raises(ValueError, match=r"array|a class without texts"):
        read_gram_sums({**arrays, "more": np.zeros(1)}, 3, 3, most=7)
    del arrays["counts"]
    with pytest.raises(ValueError, match=r"array|a class without texts"):
        read_gram_sums(arrays, 3, 3, most=7)


def test_of_noised_sums_only_sizes_can_be_checked():
    arrays = changed(gram_sums(FEATURES, LABELS, 3).arrays(), "gram", put(0, -1.0))
    assert read_gram_sums(arrays, 3, 3, most=7, noised=True).gram[0, 0] == -1
