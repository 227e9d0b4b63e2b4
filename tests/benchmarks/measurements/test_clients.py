"""Many clients of one model server: what is said of two versions that took turns."""

from __future__ import annotations

import pytest
from measurements.clients import clients_table, compared


def one_round(seconds, losses, means):
    results = [{"mean": mean, "first_losses": loss} for mean, loss in zip(means, losses, strict=True)]
    return {"seconds": seconds, "results": results}


def test_rounds_are_compared_one_by_one_and_clients_too():
    ran = [
        {
            "ours": one_round(2.0, [[1.0, 2.0], [3.0, 4.0]], [[1], [2]]),
            "against": one_round(3.0, [[1.0, 2.5], [3.0, 4.0]], [[1], [9]]),
        },
        {
            "ours": one_round(1.0, [[1.0, 2.0], [3.0, 4.0]], [[1], [2]]),
            "against": one_round(4.0, [[1.0, 2.0], [3.0, 3.9]], [[1], [2]]),
        },
    ]
    told = compared(ran)
    assert told["ratios"] == [1.5, 4.0]
    assert told["ratio"] == 2.75
    assert (told["searches"], told["searches_that_end_in_the_same_point"]) == (4, 3)
    assert told["largest_difference_of_first_losses"] == pytest.approx(0.5)


def test_a_line_for_each_version_of_each_model():
    kinds = ("round", "server_worker_cpu", "server_transport_cpu", "clients_cpu")
    side = {f"{kind}_seconds": [1.0, 2.0, 9.0] for kind in kinds} | {"client_mb": 99.6, "server_mb": 1234.0}
    values = {"sides": {"ours": side, "against": side}, "ratio": 1.6, "ratios": [1.5, 1.6, 2.0]}
    table = clients_table(
        {
            "models": {"tiny": values},
            "clients": 10,
            "local_iter": 2,
            "commits": {"ours": "aaa", "against": "bbb"},
            "machine": "two cores",
            "date": "2026-11-29",
        }
    )
    assert "| tiny | bbb | 2.0 | 2.0 | 2.0 | 2.0 | 100 | 1,234 |" in table
    assert "tiny 1.6 times as fast (1.5, 1.6, 2.0); two cores, 2026-11-29." in table
