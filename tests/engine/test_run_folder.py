import json
from dataclasses import replace

import numpy as np
import pytest

from flaretune.engine.records import RoundRecord
from flaretune.engine.run_folder import RunFolder
from flaretune.methods.fedbpt.artifact import PromptArtifact, load_prompt, save_prompt
from flaretune.methods.registry import find_method
from flaretune.tasks.metrics.base import Estimate
from flaretune.tasks.spec import load_task, task_table
from tests.engine.summaries import train_records

CLIENTS = ["hospital-a", "hospital-b"]


def settings(method: str = "FedBPT") -> dict:
    table = {key: value for key, value in task_table(load_task("sst2")).items() if key != "source"}
    return {
        "method": method,
        "options": {"intrinsic_dim": 4, "sigma": 1.0},
        "task": {"name": "sst2", **table},
        "model": {"name": "roberta-large", "kind": "masked", "hidden_size": 1024},
    }


def record(number: int, validation: float | None, loss: float = 0.5, test: float = 0.5) -> RoundRecord:
    return RoundRecord(
        round=number,
        accuracy=test,
        validation_accuracy=validation,
        validation_loss=loss,
        metrics={"fitness": 0.4, "sigma": 0.9},
        seconds=2.0,
        overhead_seconds=0.1,
        clients=CLIENTS,
        bytes_down=10.0,
        bytes_up=20.0,
        queries=41,
        example_forwards=82,
        memory_mb=64.0,
        client_metrics={"fitness": {"hospital-a": 0.4}},
    )


def saved(_result: dict) -> bool:
    return True


@pytest.fixture
def folder(tmp_path):
    return RunFolder(
        tmp_path / "flaretune",
        find_method("fedbpt"),
        settings(),
        {"num_rounds": 3},
        CLIENTS,
        zero_shot=Estimate(0.51, 0.02),
    )


def read_summary(tmp_path) -> dict:
    return json.loads((tmp_path / "flaretune" / "summary.json").read_text(encoding="utf-8"))


def test_the_prompt_kept_is_the_best_by_validation_accuracy_and_test_data_has_no_say(folder, tmp_path):
    def saver(point):
        def save(result):
            s = settings()
            artifact = PromptArtifact(point, task=s["task"], options=s["options"], model=s["model"], result=result)
            save_prompt(artifact, tmp_path / "flaretune" / "best_prompt.safetensors")
            return True

        return save

    rounds = [record(0, 0.5, test=0.99), record(1, 0.7, test=0.6), record(2, 0.6, test=0.98)]
    kept = [folder.add_round(r, saver(np.full(4, float(r.round)))) for r in rounds]
    assert kept == [True, True, False]
    prompt = load_prompt(tmp_path / "flaretune" / "best_prompt.safetensors")
    assert prompt.point.tolist() == [1.0] * 4
    assert (prompt.result["round"], prompt.result["test_accuracy"]) == (1, 0.6)
    assert (prompt.result["validation_accuracy"], prompt.result["zero_shot_accuracy"]) == (0.7, 0.51)
    assert "numpy" in prompt.result["versions"]
    summary = read_summary(tmp_path)
    assert (summary["best_round"], summary["test_accuracy"], summary["zero_shot_accuracy"]) == (1, 0.6, 0.51)
    assert (summary["method"], summary["artifact"], summary["artifact_kind"]) == (
        "FedBPT",
        "best_prompt.safetensors",
        "prompt",
    )
    assert len(summary["rounds"]) == 3


def test_of_rounds_with_equal_validation_accuracy_the_latest_is_the_best(folder, tmp_path):
    accuracies, losses = [0.7, 0.7, 0.6, 0.7], [0.4, 0.6, 0.1, 0.5]
    kept = [folder.add_round(record(i, *of), saved) for i, of in enumerate(zip(accuracies, losses, strict=True))]
    assert kept == [True, True, False, True]
    assert read_summary(tmp_path)["best_round"] == 3


def test_without_validation_data_the_latest_prompt_is_kept(folder):
    assert [folder.add_round(record(i, None), saved) for i in range(3)] == [True, True, True]


def test_a_round_without_validation_data_is_not_better_than_one_that_got_nothing_right(folder):
    assert [folder.add_round(record(i, accuracy), saved) for i, accuracy in enumerate([0.0, None, 0.1])] == [
        True,
        False,
        True,
    ]


def test_a_round_with_nothing_to_save_gives_way_to_the_first_that_has_something(folder, tmp_path):
    """Where every parameter is trained, round 0 is the pretrained model, which is not written out again."""
    kept, written = [], []
    for number, validation in enumerate([0.9, 0.6, 0.5, 0.7]):

        def save(result, number=number):
            if number:
                written.append(result["round"])
            return bool(number)

        kept.append(folder.add_round(record(number, validation), save))
    assert kept == [True, True, False, True]
    assert written == [1, 3]
    assert (read_summary(tmp_path)["best_round"], read_summary(tmp_path)["validation_accuracy"]) == (3, 0.7)


def test_a_training_run_is_kept_with_its_own_entries_of_the_last_round(tmp_path):
    folder = RunFolder(
        tmp_path / "flaretune",
        find_method("lpfl"),
        settings("LP-FL"),
        {"num_rounds": 2},
        CLIENTS,
        zero_shot=Estimate(None, None),
    )
    for r in train_records():
        folder.add_round(r, saved, soft_labelled=r.metrics["soft_labelled"], trained_parameters=1000)
    summary = read_summary(tmp_path)
    assert (summary["method"], summary["artifact"], summary["artifact_kind"]) == ("LP-FL", "best_adapter", "adapter")
    assert (summary["soft_labelled"], summary["trained_parameters"]) == (32, 1000)
    assert (summary["best_round"], summary["test_accuracy"]) == (1, 0.6)
    assert [r["metrics"].get("train_loss") for r in summary["rounds"]] == [None, 0.65, 0.4]


def test_a_resumed_run_names_the_clients_of_its_earlier_rounds_too(folder, tmp_path):
    folder.add_round(record(0, 0.5), saved)
    (tmp_path / "flaretune" / "best_prompt.safetensors").write_bytes(b"a prompt")
    now = ["hospital-d", CLIENTS[0]]
    on = RunFolder(tmp_path / "on", find_method("fedbpt"), settings(), {"num_rounds": 3}, now, Estimate(0.51, 0.02))
    on.restore(folder.state(), folder.artifact)
    on.add_round(replace(record(1, 0.6), clients=now), saved)
    summary = json.loads((tmp_path / "on" / "summary.json").read_text(encoding="utf-8"))
    assert sorted(summary["clients"]) == sorted([*CLIENTS, "hospital-d"])


def test_configuration_names_server_options_settings_clients_and_versions(folder, tmp_path):
    config = json.loads((tmp_path / "flaretune" / "config.json").read_text(encoding="utf-8"))
    assert config["server"] == {"num_rounds": 3}
    assert config["options"]["intrinsic_dim"] == 4
    assert config["method"] == "FedBPT"
    assert config["clients"] == CLIENTS
    assert {"numpy", "cma", "nvflare", "peft"} <= set(config["versions"])
