"""The clients of a job: the order in which they stand."""

from flaretune.engine.cohort import natural_order


def test_numbers_in_names_count_as_numbers_and_what_only_looks_like_one_as_text():
    names = ["site-2", "site-10", "²", "1²3", "b", "1²"]
    assert sorted(names, key=natural_order) == ["1²", "1²3", "b", "site-2", "site-10", "²"]
