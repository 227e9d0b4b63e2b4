"""Many light clients, few of them here."""

from __future__ import annotations

import pytest
from measurements.load import load, load_table

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
    result = load([2], [64], rounds=2, options=options)
    (job,) = result["jobs"]
    assert job["lost"] == 0
    # a float32 for each pair of dimensions and for each dimension, down; one for each dimension, up; and the rest
    assert 0 < job["bytes_down"] - 4 * (64 * 65 // 2 + 64) < 3000
    assert 0 < job["bytes_up"] - 4 * 64 < 3500
    assert job["server_mb"] == sorted(job["server_mb"])
    assert job["server_mb"][0] > 50
    assert f"| 2 | 64 | {job['setup_seconds']:.2f} |" in load_table(result)
