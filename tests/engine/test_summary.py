"""summary.json, and what a run says when it is over."""

import json
from dataclasses import replace

import pytest

from flaretune.engine.summary import closing_report, summary, versions, write_json
from flaretune.tasks.metrics.base import Estimate
from tests.engine.summaries import a_summary, a_training_summary, search_records, train_records

NOTHING = Estimate(None, None)


def test_the_summary_holds_what_was_promised():
    values = a_summary()
    promised = (
        "zero_shot_accuracy test_accuracy rounds queries example_forwards bytes_up_per_client_round "
        "bytes_down_per_client_round seconds artifact"
    )
    assert set(promised.split()) <= values.keys()
    for entry in values["rounds"]:
        assert {"round", "accuracy", "metrics", "seconds", "clients"} <= entry.keys()
    assert [entry["round"] for entry in values["rounds"]] == [0, 1, 2]
    assert [entry["metrics"] for entry in values["rounds"]][1] == {"fitness": 0.7, "sigma": 0.9}
    assert json.loads(json.dumps(values)) == values  # plain JSON values


def test_the_summary_of_training_holds_the_same_and_what_was_promised_besides():
    values, rounds = a_training_summary(), a_training_summary()["rounds"]
    promised = {"labelled", "soft_labelled", "soft_label_agreement", "trained_parameters"}
    assert values.keys() == a_summary().keys() | promised
    assert [entry["metrics"]["soft_labelled"] for entry in rounds] == [0, 0, 32]
    assert [entry["metrics"].get("soft_label_agreement") for entry in rounds] == [None, None, 0.875]
    assert rounds[1]["client_metrics"]["train_loss"] == {"hospital-a": 0.6, "site-2": 0.7}
    assert json.loads(json.dumps(values)) == values  # plain JSON values


@pytest.mark.parametrize("make", [a_summary, a_training_summary])
def test_the_summary_counts_the_rounds_and_not_the_start(make):
    values = make()
    assert values["queries"] == 82 + 41
    assert values["example_forwards"] == 2624 + 1312
    assert values["bytes_down_per_client_round"] == (4000 + 5000) / 2
    assert values["bytes_up_per_client_round"] == (4200 + 4300) / 2
    assert values["overhead_seconds_per_round"] == 0.65
    assert values["seconds"] == 82.0
    assert values["memory_mb"] == 1100.25  # the most of all rounds


def test_validation_accuracy_chooses_and_test_accuracy_is_that_round_s():
    values = a_summary()
    assert values["best_round"] == 1
    assert (values["validation_accuracy"], values["test_accuracy"]) == (0.75, 0.6)  # though round 2 tests at 0.7
    assert values["zero_shot_accuracy"] == 0.55
    errors = [values[f"{of}_standard_error"] for of in ("zero_shot", "validation", "test")]
    assert errors == [0.025, 0.0531, 0.0244]


def test_a_summary_before_any_round_has_zeros():
    for records in (search_records(), train_records()):
        values = summary(records[:1], best_round=0, zero_shot=NOTHING, seconds=1.0)
        assert (values["queries"], values["bytes_up_per_client_round"], values["zero_shot_accuracy"]) == (0, 0.0, None)
        assert values["memory_mb"] == 900.5  # loading is what takes memory: round 0 counts


def test_overhead_is_the_mean_of_those_that_are_known():
    records = search_records()
    unknown = [replace(record, overhead_seconds=None) for record in records]
    assert summary(records, 1, NOTHING, 1.0)["overhead_seconds_per_round"] == pytest.approx(0.65)
    assert summary(unknown, 1, NOTHING, 1.0)["overhead_seconds_per_round"] is None


def test_json_is_written_for_people_and_a_failure_leaves_the_file(tmp_path):
    """That a file is whole or as it was: see tests/test_files.py."""
    file = tmp_path / "summary.json"
    write_json({"a": 1}, file)
    assert file.read_text() == '{\n  "a": 1\n}\n'
    with pytest.raises(TypeError):
        write_json({"a": object()}, file)
    assert json.loads(file.read_text()) == {"a": 1}


def test_versions_name_python_and_the_packages():
    found = versions()
    assert {"python", "machine", "torch", "transformers", "peft", "cma", "numpy", "nvflare"} <= found.keys()
    assert found["numpy"] == __import__("numpy").__version__


# ---- the closing report ----


def test_the_closing_report_line_by_line(tmp_path):
    text = closing_report(a_summary(artifact="runs/x/best_prompt.safetensors"), tmp_path / "summary.json")
    assert text.splitlines() == [
        "zero-shot accuracy       0.550 ± 0.025 (model and template alone)",
        "test accuracy            0.600 ± 0.024 (round 1, chosen by validation accuracy 0.750 ± 0.053)",
        "accuracy by round        0: 0.500  1: 0.600  2: 0.700",
        "queries                  123 candidates, 3,936 example-forwards",
        "bytes per client, round  4,500 down, 4,250 up",
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
        "zero-shot accuracy       0.550 ± 0.025 (model and template alone)",
        "test accuracy            0.600 ± 0.024 (round 1, chosen by validation accuracy 0.750 ± 0.053)",
        "accuracy by round        0: 0.500  1: 0.600  2: 0.700",
        f"trained on               {soft}",
        "trained parameters       368,640",
        "bytes per client, round  4,500 down, 4,250 up",
        "seconds                  82",
        "adapter                  runs/x/best_adapter",
        f"summary                  {tmp_path / 'summary.json'}",
    ]


@pytest.mark.parametrize("make", [a_summary, a_training_summary])
def test_a_closing_report_without_test_data_shows_dashes(tmp_path, make):
    values = make(zero_shot_accuracy=None, test_accuracy=None)
    first, second, *_ = closing_report(values, tmp_path).splitlines()
    assert first.split()[2] == second.split()[2] == "-"


def test_a_round_that_nothing_chose_is_the_last(tmp_path):
    values = a_summary(best_round=2, test_accuracy=0.7, validation_accuracy=None, validation_standard_error=None)
    assert "(round 2, the last, as there is no validation metric)" in closing_report(values, tmp_path)


def test_the_closing_report_names_clients_whose_replies_did_not_count_as_they_were(tmp_path):
    values = a_summary()
    excluded = ({"b": "no reply"}, {"b": "no reply", "a": "not finite"}, {})
    for record, out, clipped in zip(values["rounds"], excluded, ([], ["c"], ["c"]), strict=True):
        record |= {"excluded": out, "clipped": clipped}
    lines = closing_report(values, tmp_path).splitlines()
    assert "excluded                 b (2 rounds), a (1 round)" in lines
    assert "clipped                  c (2 rounds)" in lines
    text = closing_report(a_summary(), tmp_path)
    assert "excluded" not in text
    assert "clipped" not in text


def test_the_closing_report_names_the_task_s_metric(tmp_path):
    first, second, third, *_ = closing_report(a_summary(metric="f1", metric_title="F1"), tmp_path).splitlines()
    assert first.startswith("zero-shot F1 ")
    assert second.startswith("test F1 ")
    assert "validation F1 0.750" in second
    assert third.startswith("F1 by round ")
