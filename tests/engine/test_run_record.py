import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from flaretune.engine.records import (
    SearchRecord,
    TrainRecord,
    scalars,
    summary,
    versions,
    write_json,
)
from tests.engine.summaries import a_summary, a_training_summary, search_records, train_records

SEARCHED = SearchRecord(
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
    queries=164,
    example_forwards=2624,
    memory_mb=1234.5,
    server_memory_mb=402.5,
)
TRAINED = TrainRecord(
    round=2,
    accuracy=0.8438,
    dev_accuracy=0.75,
    dev_loss=0.5,
    train_loss=0.43216,
    labelled=24,
    soft_labelled=48,
    soft_label_agreement=0.9167,
    seconds=41.2,
    overhead_seconds=0.4,
    sites=["site-1", "site-2", "site-3"],
    bytes_down=1478912.0,
    bytes_up=1479600.0,
    queries=18,
    example_forwards=192,
    memory_mb=2048.0,
    server_memory_mb=402.5,
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
def test_the_progress_line_of_a_round_of_search(changes, is_best, line):
    assert replace(SEARCHED, **changes).line(last_round=12, n_sites=4, is_best=is_best) == line


@pytest.mark.parametrize(
    ("changes", "is_best", "line"),
    [
        (
            {},
            True,
            "round  2/10  accuracy 0.844  dev 0.750*  loss 0.4322  24 labelled + 48 soft, 92% right  "
            "1,479 kB down, 1,480 kB up    41.2 s  3/3 sites: site-1, site-2, site-3",
        ),
        (
            {"soft_label_agreement": None, "sites": ["site-2"], "bytes_up": 499.0, "seconds": 1234.56},
            False,
            "round  2/10  accuracy 0.844  dev 0.750   loss 0.4322  24 labelled + 48 soft  1,479 kB down, 0 kB up  "
            "1234.6 s  1/3 sites: site-2",
        ),
        (
            {
                "round": 0,
                "train_loss": None,
                "labelled": 0,
                "soft_labelled": 0,
                "soft_label_agreement": None,
                "dev_accuracy": None,
            },
            False,
            "round  0/10  accuracy 0.844  dev   -     loss    -    0 labelled + 0 soft  1,479 kB down, 1,480 kB up  "
            "  41.2 s  3/3 sites: site-1, site-2, site-3",
        ),
        (
            {"soft_label_agreement": 0.0},
            False,
            "round  2/10  accuracy 0.844  dev 0.750   loss 0.4322  24 labelled + 48 soft, 0% right  "
            "1,479 kB down, 1,480 kB up    41.2 s  3/3 sites: site-1, site-2, site-3",
        ),
    ],
)
def test_the_progress_line_of_a_round_of_training(changes, is_best, line):
    assert replace(TRAINED, **changes).line(last_round=10, n_sites=3, is_best=is_best) == line


def test_progress_lines_stand_under_one_another():
    found = [replace(SEARCHED, round=n, fitness=f).line(12, 4, n == 1) for n, f in ((0, None), (1, 0.5), (12, -0.25))]
    assert len({line.index("sigma") for line in found}) == 1
    assert len({len(line) for line in found}) == 1
    found = [replace(TRAINED, round=n, train_loss=f).line(12, 4, n == 1) for n, f in ((0, None), (1, 0.5), (12, 1.25))]
    assert len({line.index("24 labelled") for line in found}) == 1
    assert len({len(line) for line in found}) == 1


def test_scalars_name_what_tensorboard_shows_of_a_search():
    values = scalars(replace(SEARCHED, dev_accuracy=None, site_fitness={"b": 0.4}, site_accuracy={"site-1": 0.625}))
    assert values == {
        "accuracy": 0.69,
        "dev_loss": 0.572,
        "fitness": 0.592988,
        "sigma": 0.9379,
        "seconds": 23.77,
        "overhead_seconds": 0.83,
        "bytes_down": 4363.0,
        "bytes_up": 4267.0,
        "queries": 164.0,
        "example_forwards": 2624.0,
        "memory_mb": 1234.5,
        "server_memory_mb": 402.5,
        "fitness/b": 0.4,
        "dev_accuracy/site-1": 0.625,
    }  # neither the round nor what is missing
    assert all(isinstance(value, float) for value in values.values())


def test_scalars_name_what_tensorboard_shows_of_training():
    values = scalars(replace(TRAINED, site_loss={"site-1": 0.5, "site-3": 0.375}, site_accuracy={"site-2": 0.75}))
    assert {name: values[name] for name in values if name.startswith(("train", "soft", "labelled", "dev"))} == {
        "train_loss": 0.43216,
        "train_loss/site-1": 0.5,
        "train_loss/site-3": 0.375,
        "labelled": 24.0,
        "soft_labelled": 48.0,
        "soft_label_agreement": 0.9167,
        "dev_loss": 0.5,
        "dev_accuracy": 0.75,
        "dev_accuracy/site-2": 0.75,
    }
    assert (values["bytes_up"], values["queries"], values["memory_mb"]) == (1479600.0, 18.0, 2048.0)
    assert "round" not in values
    assert all(isinstance(value, float) for value in values.values())
    before_training = scalars(replace(TRAINED, train_loss=None, soft_label_agreement=None, site_loss={}))
    assert not [name for name in before_training if name.startswith(("train_loss", "soft_label_agreement"))]


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


def test_the_summary_of_training_holds_the_same_and_what_was_promised_besides():
    values, rounds = a_training_summary(), a_training_summary()["rounds"]
    promised = {"labelled", "soft_labelled", "soft_label_agreement", "trained_parameters"}
    assert values.keys() == a_summary().keys() | promised
    for entry in rounds:
        assert {"round", "accuracy", "train_loss", "labelled", "soft_labelled", "seconds", "sites"} <= entry.keys()
        assert not {"fitness", "sigma"} & entry.keys()
    assert [entry["soft_labelled"] for entry in rounds] == [0, 0, 32]
    assert [entry["soft_label_agreement"] for entry in rounds] == [None, None, 0.875]
    assert rounds[1]["site_loss"] == {"hospital-a": 0.6, "site-2": 0.7}
    assert json.loads(json.dumps(values)) == values  # plain JSON values


@pytest.mark.parametrize("make", [a_summary, a_training_summary])
def test_the_summary_counts_the_rounds_and_not_the_set_up(make):
    values = make()
    assert values["queries"] == 82 + 41
    assert values["example_forwards"] == 2624 + 1312
    assert values["bytes_down_per_client_round"] == (4000 + 5000) / 2
    assert values["bytes_up_per_client_round"] == (4200 + 4300) / 2
    assert values["overhead_seconds_per_round"] == 0.65
    assert values["seconds"] == 82.0
    assert values["memory_mb"] == 1100.25  # the most of all rounds


def test_development_accuracy_chooses_and_test_accuracy_is_that_round_s():
    values = a_summary()
    assert values["best_round"] == 1
    assert (values["dev_accuracy"], values["test_accuracy"]) == (0.75, 0.6)  # though round 2 tests at 0.7
    assert values["zero_shot_accuracy"] == 0.55


def test_a_summary_before_any_search_has_zeros():
    for records in (search_records(), train_records()):
        values = summary(records[:1], best_round=0, zero_shot=None, seconds=1.0)
        assert (values["queries"], values["bytes_up_per_client_round"], values["zero_shot_accuracy"]) == (0, 0.0, None)
        assert values["memory_mb"] == 900.5  # loading is what takes memory: round 0 counts


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
    assert {"python", "machine", "torch", "transformers", "peft", "cma", "numpy", "nvflare"} <= found.keys()
    assert found["numpy"] == __import__("numpy").__version__


def test_the_progress_line_names_sites_that_were_limited():
    record = search_records()[1]
    assert "limited" not in record.line(5, 2, False)
    record.limited = ["site-2"]
    assert record.line(5, 2, False).endswith("limited: site-2")
