"""bfloat16 against float32, with a tiny model in the place of the demo's."""

import csv

import numpy as np
import pytest
from measurements.evaluate import EvaluateSettings, evaluate
from measurements.precision import MODEL, TASK, compare_dtypes, rank_correlation

from tests.models_for_tests import save_tiny_model
from tests.tokenizers_for_tests import SENTENCES


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, 2.0, 3.0], [0.1, 0.2, 9.0], 1.0),
        ([1.0, 2.0, 3.0], [9.0, 0.2, 0.1], -1.0),
        ([1.0, 2.0, 3.0], [30.0, 10.0, 20.0], -0.5),  # 1 − 6·Σ(differences of ranks)² / (n(n² − 1)) = 1 − 36/24
    ],
)
def test_rank_correlation(a, b, expected):
    assert rank_correlation(np.array(a), np.array(b)) == pytest.approx(expected)


def test_without_the_demo_s_assets_the_reason_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("FLARETUNE_CACHE", str(tmp_path))
    settings = EvaluateSettings(n_candidates=1, n_examples=2, repeats=1, all_steps=False, dtype="bfloat16")
    result = evaluate(["tiny-masked"], settings, device="cpu")
    assert (result["rank_correlation"], result["precision"]) == (None, None)
    note = result["rank_correlation_note"]
    assert note == (
        f"not measured: {tmp_path}/models/gemma-3-270m is not there; `python -m flaretune fetch` fetches it"
    )


def test_population_in_both_formats(tmp_path, monkeypatch):
    monkeypatch.setenv("FLARETUNE_CACHE", str(tmp_path))
    save_tiny_model("gemma3", tmp_path / "models" / MODEL)
    (tmp_path / "data" / TASK).mkdir(parents=True)
    with (tmp_path / "data" / TASK / "train.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["sentence", "label"])
        rows.writerows([SENTENCES[i % len(SENTENCES)], i % 2] for i in range(80))
    found, note = compare_dtypes("cpu", n_candidates=20)
    assert note is None
    assert (found["candidates"], found["texts"]) == (20, 32)
    for scale in found["scales"].values():
        assert 0 < scale["loss_error"] < scale["loss_spread"]
        assert 0.5 < scale["rank_correlation"] <= 1
