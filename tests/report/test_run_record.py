import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from flaretune.report.run_record import RoundRecord, closing_report, summary, versions, write_json
from tests.report.summaries import a_summary, records

SEARCHED = RoundRecord(
    round=2,
    accuracy=0.69,
    dev_accuracy=0.6953125,
    dev_loss=0.572,
    fitness=0.592988,
    sigma=0.9379,
    seconds=23.77,
    overhead_seconds=0.83,
    sites=["site-1", "b"],
    bytes_down=4363.0,
    bytes_up=4267.0,
)


@pytest.mark.parametrize(
    ("changes", "is_best", "line"),
    [
        (
            {},
            True,
            "round  2/12  accuracy 0.690  dev 0.695*  fitness  0.5930  sigma 0.938    23.8 s  2/4 sites: site-1, b",
        ),
        (
            {"round": 11, "fitness": -0.75, "seconds": 1234.56, "sites": ["a"]},
            False,
            "round 11/12  accuracy 0.690  dev 0.695   fitness -0.7500  sigma 0.938  1234.6 s  1/4 sites: a",
        ),
        (
            {"round": 0, "fitness": None, "accuracy": None, "dev_accuracy": None},
            False,
            "round  0/12  accuracy   -    dev   -     fitness    -     sigma 0.938    23.8 s  2/4 sites: site-1, b",
        ),
    ],
)
def test_the_progress_line_of_a_round(changes, is_best, line):
    assert replace(SEARCHED, **changes).line(last_round=12, n_sites=4, is_best=is_best) == line


def test_progress_lines_stand_under_one_another():
    found = [replace(SEARCHED, round=n, fitness=f).line(12, 4, n == 1) for n, f in ((0, None), (1, 0.5), (12, -0.25))]
    assert len({line.index("sigma") for line in found}) == 1
    assert len({len(line) for line in found}) == 1


def test_the_summary_holds_what_was_promised():
    values = a_summary()
    promised = (
        "zero_shot_accuracy test_accuracy rounds queries example_forwards bytes_up_per_client_round "
        "bytes_down_per_client_round seconds artifact"
    )
    assert set(promised.split()) <= values.keys()
    for entry in values["rounds"]:
        assert {"round", "accuracy", "fitness", "sigma", "seconds", "sites"} <= entry.keys()
    assert [entry["round"] for entry in values["rounds"]] == [0, 1, 2]
    assert json.loads(json.dumps(values)) == values  # plain JSON values


def test_the_summary_counts_the_search_and_not_the_set_up():
    values = a_summary()
    assert values["queries"] == 82 + 41
    assert values["example_forwards"] == 2624 + 1312
    assert values["bytes_down_per_client_round"] == (4000 + 5000) / 2
    assert values["bytes_up_per_client_round"] == (4200 + 4300) / 2
    assert values["overhead_seconds_per_round"] == 0.65
    assert values["seconds"] == 82.0


def test_development_accuracy_chooses_and_test_accuracy_is_that_round_s():
    values = a_summary()
    assert values["best_round"] == 1
    assert (values["dev_accuracy"], values["test_accuracy"]) == (0.75, 0.6)  # though round 2 tests at 0.7
    assert values["zero_shot_accuracy"] == 0.55


def test_a_summary_before_any_search_has_zeros():
    values = summary(records()[:1], best_round=0, zero_shot=None, seconds=1.0)
    assert (values["queries"], values["bytes_up_per_client_round"], values["zero_shot_accuracy"]) == (0, 0.0, None)


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "summary.json"
    write_json({"a": 1}, file)
    assert file.read_text() == '{\n  "a": 1\n}\n'
    with pytest.raises(TypeError):
        write_json({"a": object()}, file)
    moved = []

    def cut_off(source, target):
        moved.append((json.loads(Path(source).read_text()), target))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            write_json({"a": 2}, file)
    assert moved == [({"a": 2}, file)]  # all was written, under another name
    assert json.loads(file.read_text()) == {"a": 1}
    write_json({"a": 3}, file)
    assert json.loads(file.read_text()) == {"a": 3}
    assert os.listdir(tmp_path) == ["summary.json"]


def test_versions_name_python_and_the_packages():
    found = versions()
    assert {"python", "machine", "torch", "transformers", "cma", "numpy", "nvflare"} <= found.keys()
    assert found["numpy"] == __import__("numpy").__version__


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


def test_a_closing_report_without_test_data_shows_dashes(tmp_path):
    values = a_summary(zero_shot_accuracy=None, test_accuracy=None)
    first, second, *_ = closing_report(values, tmp_path).splitlines()
    assert first.split()[2] == second.split()[2] == "-"
