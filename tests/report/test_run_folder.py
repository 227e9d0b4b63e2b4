import json
from pathlib import Path

import numpy as np
import pytest

from flaretune.fedbpt.artifact import load_prompt
from flaretune.fedbpt.distribution import Distribution
from flaretune.report.run_folder import RunFolder, scalars
from flaretune.report.run_record import RoundRecord
from flaretune.tasks.spec import load_task, task_table

SITES = ["hospital-a", "hospital-b"]


def settings() -> dict:
    table = {key: value for key, value in task_table(load_task("sst2")).items() if key != "source"}
    return {
        "options": {"intrinsic_dim": 4, "sigma": 1.0},
        "popsize": 5,
        "task": {"name": "sst2", **table},
        "model": {"name": "roberta-large", "kind": "masked", "hidden_size": 1024},
    }


def record(number: int, dev: float | None, loss: float = 0.5, test: float = 0.5) -> RoundRecord:
    return RoundRecord(number, test, dev, loss, 0.4, 0.9, 2.0, 0.1, SITES, 10.0, 20.0, 41, 82, {"hospital-a": 0.4})


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "flaretune", settings(), {"num_rounds": 3}, SITES, zero_shot=0.51)


def test_the_prompt_kept_is_the_best_by_development_accuracy_and_test_data_has_no_say(folder, tmp_path):
    rounds = [record(0, 0.5, test=0.99), record(1, 0.7, test=0.6), record(2, 0.6, test=0.98)]
    kept = [folder.keep_round(r, np.full(4, float(r.round))) for r in rounds]
    assert kept == [True, True, False]
    prompt = load_prompt(tmp_path / "flaretune" / "best_prompt.safetensors")
    assert prompt.point.tolist() == [1.0] * 4
    assert (prompt.result["round"], prompt.result["test_accuracy"]) == (1, 0.6)
    summary = json.loads((tmp_path / "flaretune" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["best_round"], summary["test_accuracy"], summary["zero_shot_accuracy"]) == (1, 0.6, 0.51)
    assert len(summary["rounds"]) == 3


def test_equal_development_accuracy_is_decided_by_development_loss(folder):
    assert [folder.keep_round(record(i, 0.7, loss), np.zeros(4)) for i, loss in enumerate([0.5, 0.6, 0.4])] == [
        True,
        False,
        True,
    ]


def test_without_development_data_the_latest_prompt_is_kept(folder):
    assert [folder.keep_round(record(i, None), np.zeros(4)) for i in range(3)] == [True, True, True]


def test_answers_and_distribution_are_kept_without_pickle(folder, tmp_path):
    means = np.arange(8.0).reshape(2, 4)
    folder.keep_answers(3, SITES, means, np.array([0.1, 0.2]), np.array([8.0, 8.5]))
    answers = np.load(tmp_path / "flaretune" / "rounds" / "round_0003.npz", allow_pickle=False)
    assert answers["sites"].tolist() == SITES
    np.testing.assert_array_equal(answers["means"], means)
    folder.keep_distribution(Distribution(np.ones(4), 0.75, np.array([1.0, 2.0, 3.0, 4.0])))
    kept = np.load(tmp_path / "flaretune" / "distribution.npz", allow_pickle=False)
    assert float(kept["sigma"]) == 0.75
    np.testing.assert_array_equal(np.diag(kept["covariance"]), [1.0, 2.0, 3.0, 4.0])
    assert not list((tmp_path / "flaretune").rglob("*partial*"))


def test_a_crash_while_writing_leaves_the_file_before(folder, tmp_path, monkeypatch):
    folder.keep_distribution(Distribution(np.zeros(4), 1.0))

    def half_written(file, **_):
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", half_written)
    with pytest.raises(OSError, match="disk full"):
        folder.keep_distribution(Distribution(np.ones(4), 2.0))
    assert float(np.load(tmp_path / "flaretune" / "distribution.npz")["sigma"]) == 1.0


def test_configuration_names_server_options_settings_sites_and_versions(folder, tmp_path):
    config = json.loads((tmp_path / "flaretune" / "config.json").read_text(encoding="utf-8"))
    assert config["server"] == {"num_rounds": 3}
    assert config["options"]["intrinsic_dim"] == 4
    assert config["sites"] == SITES
    assert {"numpy", "cma", "nvflare"} <= set(config["versions"])


def test_scalars_name_what_tensorboard_shows():
    values = scalars(record(2, None))
    assert values["fitness/hospital-a"] == 0.4
    assert values["bytes_up"] == 20.0
    assert "dev_accuracy" not in values  # missing
    assert "round" not in values
    assert all(isinstance(value, float) for value in values.values())
