"""Many light clients, few of them here."""

from __future__ import annotations

import pytest

from flaretune.bench.load import load, load_table
from flaretune.errors import UserError
from tests.learnable import write_reviews
from tests.models_for_tests import save_tiny_model


@pytest.mark.parametrize(("options", "flag"), [({"clients": [0]}, "--clients 0"), ({"rounds": 0}, "--rounds 0")])
def test_numbers_below_one_are_refused(options, flag):
    with pytest.raises(UserError, match=flag):
        load(**options)


@pytest.mark.slow
def test_no_answer_is_lost_and_the_covariance_is_what_travels(tmp_path):
    data = write_reviews(tmp_path / "data", n_train=200, n_test=20)
    options = {"model_name": save_tiny_model("llama", tmp_path / "llama"), "dataset": data, "task_name": "sst2"}
    result = load([3], [8, 64], rounds=2, options=options)
    small, large = result["jobs"]
    assert small["lost"] == large["lost"] == 0
    # one float32 for each pair of dimensions and for each dimension, down; one for each dimension, up
    pairs = (64 * 65 - 8 * 9) / 2
    assert large["bytes_down"] - small["bytes_down"] == pytest.approx(4 * (pairs + 64 - 8), abs=100)
    assert large["bytes_up"] - small["bytes_up"] == pytest.approx(4 * (64 - 8), abs=100)
    assert small["server_mb"] == sorted(small["server_mb"])
    assert small["server_mb"][0] > 50
    assert f"| 3 | 64 | {large['setup_seconds']:.2f} |" in load_table(result)
