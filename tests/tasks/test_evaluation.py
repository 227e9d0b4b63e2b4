"""No site chooses the best round alone by what it says of its number of examples."""

import numpy as np

from flaretune.tasks.evaluation import Evaluation, hold_to_the_others


def evaluation(right: int, size: int) -> Evaluation:
    return Evaluation(np.array([right, size]), size * 0.5, size, None)


def test_sizes_within_twice_the_lower_median_stay():
    given = {"a": evaluation(8, 16), "b": evaluation(12, 32), "c": evaluation(0, 0), "d": evaluation(7, 15)}
    assert hold_to_the_others(given) == given


def test_a_site_of_very_many_examples_counts_as_one_of_twice_the_median():
    given = {"a": evaluation(8, 16), "b": evaluation(16, 16), "c": evaluation(10**9, 10**9)}
    held = hold_to_the_others(given)
    assert held["a"] is given["a"]
    assert (held["c"].dev.tolist(), held["c"].dev_size, held["c"].dev_loss_sum) == ([32, 32], 32, 16.0)
