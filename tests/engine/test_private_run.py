"""What is said of a run with noise, and that nothing is said that its clients did not tell."""

from dataclasses import replace
from pathlib import Path

import pytest

from flaretune.engine.records import round_line, scalars
from flaretune.engine.summary import closing_report
from flaretune.methods.registry import find_method
from flaretune.privacy.accountant import account
from tests.engine.summaries import a_summary, a_training_summary, search_records, train_records

OPTIONS = {"dp_noise": 1.0, "dp_clip": 2.0}


@pytest.mark.parametrize("values", [a_summary(), a_training_summary()])
def test_the_closing_report_tells_epsilon_in_place_of_what_is_unknown(values):
    plain = closing_report(values, Path("summary.json"))
    told = closing_report({**values, "privacy": account(OPTIONS, 12)}, Path("summary.json"))
    assert "privacy" not in plain
    assert "privacy                  ε = 21.44, δ = 1e-05 for all that a client sends (" in told
    assert "12 noised results" in told
    for unknown in ("example-forwards", "trained on"):
        assert unknown not in told


@pytest.mark.parametrize(("method", "record"), [("fedbpt", search_records()[1]), ("lpfl", train_records()[1])])
def test_the_line_of_a_round(method, record):
    def line(record):
        about = {"last_round": 12, "n_clients": 2, "is_best": False}
        return round_line(record, find_method(method), "accuracy", **about)

    private = replace(record, releases=1, epsilon=4.7285, overhead_seconds=None)
    assert "  ε 4.73  " in line(private)
    assert "ε" not in line(record)
    assert "labelled" not in line(private)
    assert scalars(private)["epsilon"] == 4.7285
    assert not {"releases", "overhead_seconds"} & set(scalars(private))
    assert "epsilon" not in scalars(record)
