"""What is said of a run with noise, and that nothing is said that its sites did not tell."""

from dataclasses import replace
from pathlib import Path

import pytest

from flaretune.engine.records import closing_report, scalars, summary
from flaretune.privacy.accountant import account
from tests.engine.summaries import a_summary, a_training_summary, search_records, train_records

OPTIONS = {"dp_noise": 1.0, "dp_clip": 2.0}


@pytest.mark.parametrize("values", [a_summary(), a_training_summary()])
def test_the_closing_report_tells_epsilon_in_place_of_what_is_unknown(values):
    plain = closing_report(values, Path("summary.json"))
    told = closing_report({**values, "privacy": account(OPTIONS, 12)}, Path("summary.json"))
    assert "privacy" not in plain
    assert "privacy                  ε = 21.44, δ = 1e-05 for all that a site sends (" in told
    assert "12 noised answers" in told
    for unknown in ("example-forwards", "trained on"):
        assert unknown not in told


@pytest.mark.parametrize("record", [search_records()[1], train_records()[1]])
def test_the_line_of_a_round(record):
    private = replace(record, releases=1, epsilon=4.7285, overhead_seconds=None)
    assert "  ε 4.73  " in private.line(12, 2, False)
    assert "ε" not in record.line(12, 2, False)
    assert "labelled" not in private.line(12, 2, False)
    assert scalars(private)["epsilon"] == 4.7285
    assert not {"releases", "overhead_seconds"} & set(scalars(private))
    assert "epsilon" not in scalars(record)


def test_overhead_is_the_mean_of_those_that_are_known():
    records = search_records()
    unknown = [replace(record, overhead_seconds=None) for record in records]
    assert summary(records, 1, None, 1.0)["overhead_seconds_per_round"] == pytest.approx(0.65)
    assert summary(unknown, 1, None, 1.0)["overhead_seconds_per_round"] == 0.0
