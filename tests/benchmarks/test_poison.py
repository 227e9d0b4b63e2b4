"""The comparison of aggregations under poisoning clients, on a tiny model."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import poison  # noqa: E402

from tests.learnable import write_reviews  # noqa: E402
from tests.models_for_tests import save_tiny_model  # noqa: E402


def test_liars_lie_as_is_said():
    liar = poison.Liar(2, "away", 100.0, seed=1)
    assert [liar.lies(i, 5) for i in range(5)] == [False, False, False, True, True]
    start, end = np.ones(8), np.ones(8) + 0.5
    first, second = (liar.moved(s, e, "mean") - s for s, e in ((start, end), (end, end + 0.25)))
    assert np.linalg.norm(first) == pytest.approx(100 * np.linalg.norm(end - start))
    np.testing.assert_allclose(first / np.linalg.norm(first), second / np.linalg.norm(second))  # the same direction
    np.testing.assert_allclose(poison.Liar(1, "reverse", 3.0, seed=1).moved(start, end, "mean"), start - 1.5)


def test_the_table_has_a_cell_for_each_aggregation_and_number():
    def run(aggregation, attackers, seed, accuracy, chosen=1):
        cell = {"aggregation": aggregation, "attackers": attackers, "seed": seed, "attack": "away", "sites": 10}
        return {**cell, "method": "fedbpt", "rounds": 2, "accuracy": accuracy, "chosen_round": chosen}

    runs = [run("mean", 0, 1, [0.5, 0.8, 0.7]), run("mean", 0, 2, [0.5, 0.9, 0.8]), run("clipped", 1, 1, [0.5, 0.6])]
    lines = poison.table(runs).splitlines()
    assert lines[0] == "| method, attack | aggregation | 0 poisoning | 1 poisoning |"
    assert lines[2] == "| FedBPT, away, 10 clients | mean | 0.850 ± 0.071 / 0.750 ± 0.071 |  |"
    assert lines[3] == "| FedBPT, away, 10 clients | clipped |  | 0.600 / 0.600 (1 of 1 ended early) |"


@pytest.mark.parametrize(("asked", "own"), [([], "--intrinsic_dim"), (["--method", "lpfl"], "--lora_rank")])
def test_help_has_the_options_of_the_method_s_clients(capsys, asked, own):
    with pytest.raises(SystemExit) as ended:
        poison.main([*asked, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert {flag for flag in ("--intrinsic_dim", "--lora_rank") if flag in text} == {own}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fedbpt", "lpfl", "verbalizer"])
def test_all_methods_and_going_on(tmp_path, capsys, method):
    model, data = str(save_tiny_model("roberta", tmp_path / "model")), str(write_reviews(tmp_path / "data", 90, 20))
    file = tmp_path / "poison.json"
    own = {
        "fedbpt": ["--n_prompt_tokens", "3", "--intrinsic_dim", "6", "--local_iter", "2", "--cat_or_add", "add"],
        "lpfl": ["--unlabelled", "10", "--lora_rank", "2", "--local_steps", "2"],
        "verbalizer": ["--n_words", "8"],
    }
    command = ["--method", method, "--sites", "5", "--attackers", "0", "1", "--rounds", "1", "--json", str(file)]
    command += ["--task_name", "sst2", "--model_name", model, "--dataset", data, "--k_shot", "10", "--dtype", "float32"]
    assert poison.main([*command, *own[method]]) == 0
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
    assert [(run["attackers"], run["aggregation"]) for run in runs] == [
        (n, aggregation) for n in (0, 1) for aggregation in ("mean", "clipped", "median")
    ]
    assert all(len(run["accuracy"]) == 2 for run in runs)
    found = {(run["attackers"], run["aggregation"]): run for run in runs}
    assert found[0, "mean"]["dev_accuracy"] == found[0, "clipped"]["dev_accuracy"]
    assert found[1, "clipped"]["limited"] == [[], ["site-5"]]
    assert "| mean |" in capsys.readouterr().out
    assert poison.main([*command, *own[method]]) == 0  # nothing is left to do
    assert json.loads(file.read_text(encoding="utf-8"))["runs"] == runs
