from dataclasses import replace

import pytest

from flaretune.engine.records import RoundRecord, round_line, scalars
from flaretune.methods.registry import find_method
from tests.engine.summaries import search_records

SEARCHED = RoundRecord(
    round=2,
    accuracy=0.69,
    validation_accuracy=0.6953125,
    validation_loss=0.572,
    metrics={"fitness": 0.592988, "sigma": 0.9379},
    seconds=23.77,
    overhead_seconds=0.83,
    clients=["site-1", "b"],
    bytes_down=4363.0,
    bytes_up=4267.0,
    queries=164,
    example_forwards=2624,
    memory_mb=1234.5,
    server_memory_mb=402.5,
)
TRAINING = {"train_loss": 0.43216, "labelled": 24, "soft_labelled": 48, "soft_label_agreement": 0.9167}
TRAINED = RoundRecord(
    round=2,
    accuracy=0.8438,
    validation_accuracy=0.75,
    validation_loss=0.5,
    metrics=TRAINING,
    seconds=41.2,
    overhead_seconds=0.4,
    clients=["site-1", "site-2", "site-3"],
    bytes_down=1478912.0,
    bytes_up=1479600.0,
    queries=18,
    example_forwards=192,
    memory_mb=2048.0,
    server_memory_mb=402.5,
)


def line(record: RoundRecord, method: str, last_round: int, n_clients: int, is_best: bool, metric="accuracy") -> str:
    return round_line(record, find_method(method), metric, last_round=last_round, n_clients=n_clients, is_best=is_best)


@pytest.mark.parametrize(
    ("changes", "is_best", "expected"),
    [
        (
            {},
            True,
            "round  2/12  accuracy 0.690  validation 0.695*  fitness  0.5930  sigma 0.938  4.4 kB down, 4.3 kB up    "
            "23.8 s  2/4 clients: site-1, b",
        ),
        (
            {"round": 11, "metrics": {"fitness": -0.75, "sigma": 0.9379}, "seconds": 1234.56, "clients": ["a"]},
            False,
            "round 11/12  accuracy 0.690  validation 0.695   fitness -0.7500  sigma 0.938  4.4 kB down, 4.3 kB up  "
            "1234.6 s  1/4 clients: a",
        ),
        (
            {"round": 0, "metrics": {"sigma": 0.9379}, "accuracy": None, "validation_accuracy": None},
            False,
            "round  0/12  accuracy   -    validation   -     fitness    -     sigma 0.938  4.4 kB down, 4.3 kB up    "
            "23.8 s  2/4 clients: site-1, b",
        ),
    ],
)
def test_the_progress_line_of_a_round_of_fedbpt(changes, is_best, expected):
    assert line(replace(SEARCHED, **changes), "fedbpt", 12, 4, is_best) == expected


def test_a_round_from_before_a_resume_may_have_had_more_clients():
    record = replace(SEARCHED, clients=["a", "b", "c"], excluded={"d": "gone"})
    assert "  3/4 clients: a, b, c" in line(record, "fedbpt", 12, 2, False)
    assert "  3/5 clients: a, b, c" in line(record, "fedbpt", 12, 5, False)


def without(*names: str) -> dict[str, float]:
    return {name: value for name, value in TRAINING.items() if name not in names}


@pytest.mark.parametrize(
    ("changes", "is_best", "expected"),
    [
        (
            {},
            True,
            "round  2/10  accuracy 0.844  validation 0.750*  loss 0.4322  24 labelled + 48 soft, 92% correct  "
            "1,479 kB down, 1,480 kB up    41.2 s  3/3 clients: site-1, site-2, site-3",
        ),
        (
            {
                "metrics": without("soft_label_agreement"),
                "clients": ["site-2"],
                "bytes_up": 499.0,
                "seconds": 1234.56,
            },
            False,
            "round  2/10  accuracy 0.844  validation 0.750   loss 0.4322  24 labelled + 48 soft  "
            "1,479 kB down, 0.5 kB up  1234.6 s  1/3 clients: site-2",
        ),
        (
            {"round": 0, "metrics": {}, "validation_accuracy": None},
            False,
            "round  0/10  accuracy 0.844  validation   -     loss    -    0 labelled + 0 soft  "
            "1,479 kB down, 1,480 kB up    41.2 s  3/3 clients: site-1, site-2, site-3",
        ),
        (
            {"metrics": {**TRAINING, "soft_label_agreement": 0.0}},
            False,
            "round  2/10  accuracy 0.844  validation 0.750   loss 0.4322  24 labelled + 48 soft, 0% correct  "
            "1,479 kB down, 1,480 kB up    41.2 s  3/3 clients: site-1, site-2, site-3",
        ),
    ],
)
def test_the_progress_line_of_a_round_of_lpfl(changes, is_best, expected):
    assert line(replace(TRAINED, **changes), "lpfl", 10, 3, is_best) == expected


def test_progress_lines_stand_under_one_another():
    searched = [{"sigma": 0.9, **({} if f is None else {"fitness": f})} for f in (None, 0.5, -0.25)]
    found = [
        line(replace(SEARCHED, round=n, metrics=m), "fedbpt", 12, 4, n == 1)
        for n, m in zip((0, 1, 12), searched, strict=True)
    ]
    assert len({text.index("sigma") for text in found}) == 1
    assert len({len(text) for text in found}) == 1
    losses = [without("train_loss") | ({} if f is None else {"train_loss": f}) for f in (None, 0.5, 1.25)]
    found = [
        line(replace(TRAINED, round=n, metrics=m), "lpfl", 12, 4, n == 1)
        for n, m in zip((0, 1, 12), losses, strict=True)
    ]
    assert len({text.index("24 labelled") for text in found}) == 1
    assert len({len(text) for text in found}) == 1


def test_the_progress_line_names_the_task_s_metric_and_clipped_clients():
    record = search_records()[1]
    assert "clipped" not in line(record, "fedbpt", 5, 2, False)
    record.clipped = ["site-2"]
    text = line(record, "fedbpt", 5, 2, False, metric="F1")
    assert text.endswith("clipped: site-2")
    assert "  F1 0.600  " in text


def test_scalars_name_what_tensorboard_shows_of_fedbpt():
    changes = {"client_metrics": {"fitness": {"b": 0.4}}, "client_accuracy": {"site-1": 0.625}}
    values = scalars(replace(SEARCHED, validation_accuracy=None, **changes))
    assert values == {
        "accuracy": 0.69,
        "validation_loss": 0.572,
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
        "validation_accuracy/site-1": 0.625,
    }  # neither the round nor what is missing
    assert all(isinstance(value, float) for value in values.values())


def test_scalars_name_what_tensorboard_shows_of_lpfl():
    by_client = {"train_loss": {"site-1": 0.5, "site-3": 0.375}}
    values = scalars(replace(TRAINED, client_metrics=by_client, client_accuracy={"site-2": 0.75}))
    own = {name: values[name] for name in values if name.startswith(("train", "soft", "labelled", "validation"))}
    assert own == {
        "train_loss": 0.43216,
        "train_loss/site-1": 0.5,
        "train_loss/site-3": 0.375,
        "labelled": 24.0,
        "soft_labelled": 48.0,
        "soft_label_agreement": 0.9167,
        "validation_loss": 0.5,
        "validation_accuracy": 0.75,
        "validation_accuracy/site-2": 0.75,
    }
    assert (values["bytes_up"], values["queries"], values["memory_mb"]) == (1479600.0, 18.0, 2048.0)
    assert "round" not in values
    assert all(isinstance(value, float) for value in values.values())
