"""What a run says when it is over."""

import pytest

from flaretune.engine.records import closing_report
from tests.engine.summaries import a_summary, a_training_summary


def test_the_closing_report_line_by_line(tmp_path):
    text = closing_report(a_summary(artifact="runs/x/best_prompt.safetensors"), tmp_path / "summary.json")
    assert text.splitlines() == [
        "zero-shot accuracy       0.550 (model and template alone)",
        "test accuracy            0.600 (round 1, chosen by development accuracy 0.750)",
        "accuracy by round        0: 0.500  1: 0.600  2: 0.700",
        "queries                  123 candidates, 3,936 example-forwards",
        "bytes a client and round 4,500 down, 4,250 up",
        "seconds                  82",
        "prompt                   runs/x/best_prompt.safetensors",
        f"summary                  {tmp_path / 'summary.json'}",
    ]


@pytest.mark.parametrize(
    ("agreement", "soft"),
    [
        (0.875, "12 labelled and 32 soft-labelled texts in the last round, 87.5% of them as the hidden labels have it"),
        (None, "12 labelled and 32 soft-labelled texts in the last round"),
    ],
)
def test_the_closing_report_of_training_line_by_line(tmp_path, agreement, soft):
    values = a_training_summary(artifact="runs/x/best_adapter", soft_label_agreement=agreement)
    assert closing_report(values, tmp_path / "summary.json").splitlines() == [
        "zero-shot accuracy       0.550 (model and template alone)",
        "test accuracy            0.600 (round 1, chosen by development accuracy 0.750)",
        "accuracy by round        0: 0.500  1: 0.600  2: 0.700",
        f"trained on               {soft}",
        "trained parameters       368,640",
        "bytes a client and round 4,500 down, 4,250 up",
        "seconds                  82",
        "adapter                  runs/x/best_adapter",
        f"summary                  {tmp_path / 'summary.json'}",
    ]


@pytest.mark.parametrize("make", [a_summary, a_training_summary])
def test_a_closing_report_without_test_data_shows_dashes(tmp_path, make):
    values = make(zero_shot_accuracy=None, test_accuracy=None)
    first, second, *_ = closing_report(values, tmp_path).splitlines()
    assert first.split()[2] == second.split()[2] == "-"


def test_the_closing_report_names_sites_whose_answers_did_not_count_as_they_were(tmp_path):
    values = a_summary()
    left_out = ({"b": "no answer"}, {"b": "no answer", "a": "not finite"}, {})
    for record, out, limited in zip(values["rounds"], left_out, ([], ["c"], ["c"]), strict=True):
        record |= {"left_out": out, "limited": limited}
    lines = closing_report(values, tmp_path).splitlines()
    assert "left out                 b (2 rounds), a (1 round)" in lines
    assert "held to the others       c (2 rounds)" in lines
    assert not any("left out" in line or "held" in line for line in closing_report(a_summary(), tmp_path).splitlines())
