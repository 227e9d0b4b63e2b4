"""What label words alone would weigh in a head."""

import numpy as np
import pytest

from flaretune.methods.verbalizer.head import label_word_weights

LABEL_IDS = [[5], [6, 7], [8]]
# Behind templates 0 and 2 there is a word of each class, behind 1 none of the last.
WORDS = np.array([(0, 5), (0, 6), (0, 7), (0, 8), (0, 9), (1, 5), (1, 6), (2, 5), (2, 7), (2, 8)])


def test_a_class_weighs_its_words_behind_each_template_that_has_all_classes():
    log_probs = np.random.default_rng(0).normal(size=(4, len(WORDS)))
    a, b, c, d, _, _, _, e, f, g = log_probs.T
    scores = np.stack([a + e, (b + c) / 2 + f, d + g], axis=1) / 2
    found = log_probs @ label_word_weights(WORDS, LABEL_IDS, 3)
    np.testing.assert_allclose(found, scores - scores.mean(axis=1, keepdims=True), atol=1e-12)


@pytest.mark.parametrize("label_ids", [[], [[5], [6], [10]]])
def test_there_are_none_without_a_word_of_each_class(label_ids):
    assert label_word_weights(WORDS, label_ids, 3) is None
