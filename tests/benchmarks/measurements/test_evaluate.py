"""What `evaluate` reports, on shapes that take no time."""

import json

import pytest
import torch
from measurements import timing
from measurements.evaluate import EvaluateSettings, evaluate, evaluate_table

from flaretune.errors import UserError

TINY = ("tiny-masked", "tiny-causal")
BASELINE_STEPS = ["baseline", "bfloat16", "all candidates together", "sorted by length, in batches"]
STEPS = {
    "tiny-masked": [*BASELINE_STEPS, "label words, at the answers only"],
    "tiny-causal": [*BASELINE_STEPS, "label words, at the answers only", "cached text"],
}
# All numbers have four digits, so each is off by up to 5e-4 of itself: by 1.5e-3 one and what two others make of it.
ROUNDED = 2e-3


@pytest.fixture(scope="module", params=[0, 1], ids=["plain", "perturbed"])
def result(request):
    settings = EvaluateSettings(
        n_candidates=2, n_examples=10, intrinsic_dim=9, repeats=1, perturb=request.param, dtype="bfloat16"
    )
    return evaluate(TINY, settings, device="cpu", real_model=False)


def test_keys(result):
    result = json.loads(json.dumps(result))
    assert set(result) >= {"ratio_masked", "ratio_causal", "rank_correlation", "machine", "versions", "date", "steps"}
    assert result["rank_correlation"] is None
    assert result["rank_correlation_note"] == "not measured: it was not asked for"
    assert result["ratio_masked"] == result["shapes"]["tiny-masked"]["ratio"]
    assert result["ratio_causal"] == result["shapes"]["tiny-causal"]["ratio"]
    assert {name: [row["step"] for row in rows] for name, rows in result["steps"].items()} == STEPS


def test_numbers_fit_together(result):
    forwards = 2 * 10 * (2 if result["settings"]["perturb"] else 1)
    for name, rows in result["steps"].items():
        shape = result["shapes"][name]
        assert shape["baseline"]["seconds"] == rows[0]["seconds"]
        assert shape["ours"]["seconds"] == rows[-1]["seconds"]
        assert shape["ratio"] == pytest.approx(rows[0]["seconds"] / rows[-1]["seconds"], rel=ROUNDED)
        assert 0 < shape["largest_logit_difference"] < 0.2 * shape["largest_logit"]  # bfloat16, but the same answers
        for row in rows:
            assert row["example_forwards_per_second"] == pytest.approx(forwards / row["seconds"], rel=ROUNDED)
            assert row["useful_tokens"] <= row["computed_tokens"]
            rate = result["matrix_tflops"] * 1e12
            assert row["mfu"] == pytest.approx(row["model_gflops"] * 1e9 / row["seconds"] / rate, rel=ROUNDED)
        products = [row["times_step_before"] for row in rows]
        assert products[0] == 1
        assert products[1] == pytest.approx(rows[0]["seconds"] / rows[1]["seconds"], rel=ROUNDED)


def test_tokens_of_the_steps(result):
    for rows in result["steps"].values():
        computed = {row["step"]: row["computed_tokens"] for row in rows}
        assert computed["baseline"] == computed["bfloat16"] == computed["all candidates together"]
        assert computed["sorted by length, in batches"] < computed["baseline"]
        assert computed["label words, at the answers only"] == computed["sorted by length, in batches"]
    (cached,) = (row for row in result["steps"]["tiny-causal"] if row["step"] == "cached text")
    # n = 4 and the tail's 3 for each pair; and, perturbed, an eighth of what is in front of the prompt
    perturbed = result["settings"]["perturb"]
    assert cached["useful_tokens"] == pytest.approx(2 * 10 * 7 * (1 + perturbed), abs=perturbed * 10 * 97 / 8)


def test_table(result):
    lines = evaluate_table(result).splitlines()
    assert lines[2].startswith("| tiny-masked | baseline | ")
    assert sum(line.startswith("| tiny-") for line in lines) == 11
    assert ("plain and perturbed" in lines[-1]) == bool(result["settings"]["perturb"])


def test_first_and_last_step_only():
    settings = EvaluateSettings(n_candidates=2, n_examples=4, intrinsic_dim=9, repeats=1, all_steps=False)
    result = evaluate(["tiny-causal"], settings, device="cpu", real_model=False)
    assert [row["step"] for row in result["steps"]["tiny-causal"]] == ["baseline", "cached text"]
    assert result["ratio_masked"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repeats": 0}, "--repeats 0: must be at least 1"),
        ({"cache_mb": -1}, "--cache_mb -1: must be at least 0"),
        ({"n_prompt_tokens": 180}, r"--n_prompt_tokens 180: .* shape 'tiny-masked' has 198 positions"),
        ({"n_examples": 100, "cache_mb": 1, "repeats": 1, "n_candidates": 1}, "--cache_mb is too small for the texts"),
    ],
)
def test_what_is_refused(settings, message):
    shape = "tiny-causal" if "n_examples" in settings else "tiny-masked"
    with pytest.raises(UserError, match=message):
        evaluate([shape], EvaluateSettings(**settings), device="cpu", real_model=False)


@pytest.mark.parametrize(("instructions", "dtype"), [({"avx512_bf16": True}, "bfloat16"), ({}, "float32")])
def test_ours_computes_in_what_jobs_do(monkeypatch, instructions, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    rates = []
    monkeypatch.setattr("measurements.evaluate.matrix_rate", lambda _, used: rates.append(used) or 1e9)
    settings = EvaluateSettings(n_candidates=2, n_examples=4, intrinsic_dim=9, repeats=1)
    result = evaluate(["tiny-masked"], settings, device="cpu", real_model=False)
    without = [step for step in STEPS["tiny-masked"] if (step, dtype) != ("bfloat16", "float32")]
    assert [row["step"] for row in result["steps"]["tiny-masked"]] == without
    assert result["settings"]["dtype"] == dtype
    assert set(rates) == {getattr(torch, dtype)}
    assert f"the 0.001 TFLOP/s of {dtype} matrix products" in evaluate_table(result)
    shape = result["shapes"]["tiny-masked"]
    assert (shape["largest_logit_difference"] < 1e-4 * shape["largest_logit"]) == (dtype == "float32")


def test_turns_are_taken_and_the_median_counts():
    order, values = [], {"a": iter([3.0, 1.0, 2.0]), "b": iter([10.0, 30.0, 40.0])}

    def measured(name):
        def function():
            order.append(name)
            return next(values[name])

        return function

    assert timing.take_turns([measured("a"), measured("b")], 3) == [2.0, 30.0]
    assert order == ["a", "b"] * 3


def test_matrix_rate_is_that_of_the_fastest_product(monkeypatch):
    seconds = iter([9.0, 4.0, 2.0, *[3.0] * 100])
    monkeypatch.setattr(timing, "seconds_of", lambda function, device: next(seconds))
    assert timing.matrix_rate(torch.device("cpu"), torch.float32) == 2 * 64**3 / 2.0
