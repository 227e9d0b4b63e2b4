"""Making a head of noised sums."""

import numpy as np

from flaretune.aggregation.mean import Mean
from flaretune.methods.exchanged import FitResult
from flaretune.methods.verbalizer.head_fit import HeadFit
from flaretune.methods.verbalizer.ridge import TEMPERATURES
from flaretune.methods.verbalizer.statistics import gram_sums, word_statistics
from flaretune.tasks.evaluation import Counters


def test_where_noised_sums_tell_nothing_the_label_words_behind_neutral_texts_decide():
    """Two templates, six candidates of which the first four are label words: 0.2 a nat of the classes' difference."""
    rng = np.random.default_rng(0)
    neutral, candidates = rng.normal(size=(2, 6)), np.array([7, 9, 8, 3, 5, 4])
    fit = HeadFit(Mean(), candidates, neutral, [[7, 9], [8, 3]], 5, 2, 10, False, noise=3.0)
    nothing = np.zeros(0, dtype=np.int64)
    for step, arrays in (
        ("words", word_statistics(np.zeros((0, 12)), nothing, 2).arrays()),
        ("sums", gram_sums(np.zeros((0, 10)), nothing, 2).arrays()),
        ("losses", None),
    ):
        _, numbers = fit.configure(step)
        if arrays is None:
            arrays = {"losses": np.zeros((1, len(TEMPERATURES))), "n": np.zeros(1)}
            assert not numbers["leave_one_out"]
        fit.aggregate(step, {"site-1": FitResult(fit.check(step, arrays), {}, Counters(1, 0, 0.0))})

    said = rng.normal(size=(4, 2, 6))  # of four texts, behind both templates
    head = fit.head
    found = head.logits(said[:, head.words[:, 0], [candidates.tolist().index(t) for t in head.words[:, 1]]])
    above = said - neutral
    classes = np.stack([above[:, :, :2].mean(axis=(1, 2)), above[:, :, 2:4].mean(axis=(1, 2))], axis=1)
    expected = 0.5 + 0.2 * (classes - classes.mean(axis=1, keepdims=True))
    np.testing.assert_allclose(found * head.temperature, expected, atol=1e-12)
