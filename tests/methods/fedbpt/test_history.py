from pathlib import Path

import numpy as np
import pytest

from flaretune.methods.fedbpt.cma_es import RoundResults
from flaretune.methods.fedbpt.distribution import Distribution
from flaretune.methods.fedbpt.strategy import keep_distribution, keep_results

CLIENTS = ["hospital-a", "hospital-b"]


def test_results_and_distribution_are_kept_without_pickle(tmp_path):
    means = np.arange(8.0).reshape(2, 4)
    keep_results(tmp_path, 3, CLIENTS, RoundResults(means, np.array([0.1, 0.2]), np.array([8.0, 8.5])))
    results = np.load(tmp_path / "rounds" / "round_0003.npz", allow_pickle=False)
    assert results["clients"].tolist() == CLIENTS
    np.testing.assert_array_equal(results["means"], means)
    assert results["fitness"].tolist() == [0.1, 0.2]
    assert results["sigma_square_sums"].tolist() == [8.0, 8.5]
    keep_distribution(tmp_path, Distribution(np.ones(4), 0.75, np.array([1.0, 2.0, 3.0, 4.0])))
    kept = np.load(tmp_path / "distribution.npz", allow_pickle=False)
    assert kept["mean"].tolist() == [1.0] * 4
    assert float(kept["sigma"]) == 0.75
    np.testing.assert_array_equal(np.diag(kept["covariance"]), [1.0, 2.0, 3.0, 4.0])
    assert not list(tmp_path.rglob("*partial*"))


def test_rounds_stand_side_by_side(tmp_path):
    for round_number in (1, 2):
        found = RoundResults(np.full((1, 4), round_number), np.zeros(1), np.ones(1))
        keep_results(tmp_path, round_number, CLIENTS[:1], found)
    assert sorted(file.name for file in (tmp_path / "rounds").iterdir()) == ["round_0001.npz", "round_0002.npz"]


def test_a_crash_while_writing_leaves_the_file_before(tmp_path, monkeypatch):
    keep_distribution(tmp_path, Distribution(np.zeros(4), 1.0))

    def half_written(file, _data):
        with open(file, "wb") as stream:
            stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", half_written)
    with pytest.raises(OSError, match="disk full"):
        keep_distribution(tmp_path, Distribution(np.ones(4), 2.0))
    assert float(np.load(tmp_path / "distribution.npz")["sigma"]) == 1.0
