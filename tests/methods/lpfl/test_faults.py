"""What one bad client does to an LP-FL job, and what the user reads of it."""

import numpy as np
import pytest

from flaretune.engine import codec
from flaretune.methods.lpfl.artifact import load_adapter
from tests.jobs_for_tests import read_summary

CLIENTS = [f"site-{i}" for i in range(1, 6)]


@pytest.fixture
def job(lpfl_job):
    """Run a job of two rounds and five clients; returns what was said, the folder of its results, and the summary."""

    def run(change, name="results", aggregation="clipped", **options):
        small = {"k_shot": 10, "soft_labels": "off", "unlabelled": 0}
        told, folder = lpfl_job(name, clients=CLIENTS, change=change, aggregation=aggregation, **{**small, **options})
        return told, folder, read_summary(folder)

    return run


def lie(client, task, _round, reply):
    """The second client reverses and enlarges its adapter, and claims to have trained on very many texts."""
    if (client, task) == ("site-2", codec.FIT):
        for name in [n for n in reply.arrays if "lora_" in n]:
            reply.arrays[name] = -1000 * reply.arrays[name]
        reply.fields["numbers"]["labelled"] = 20  # k for each class: the most that a client may have
    return reply


def length_of_the_way(told, folder) -> float:
    """How far the last round has taken the adapter, in lengths of the longest update of an honest client."""
    start = next(m.arrays for task, n, m in told.tasks if (task, n) == (codec.FIT, 2))
    last = load_adapter(folder / "last_adapter").arrays

    def distance(arrays):
        return np.sqrt(sum(np.square(arrays[name].astype(np.float64) - start[name]).sum() for name in start))

    honest = [m.arrays for client, task, n, m in told.replies if (task, n) == (codec.FIT, 2) and client != "site-2"]
    return distance(last) / max(map(distance, honest))


@pytest.mark.slow
def test_a_liar_is_held_to_the_others_and_named(job, caplog):
    told, folder, summary = job(lie)
    assert told.failure == ""
    assert [r["clipped"] for r in summary["rounds"]] == [[], ["site-2"], ["site-2"]]
    assert "round 2: the update of site-2 is far beyond those of the others: it is clipped" in caplog.text
    assert length_of_the_way(told, folder) <= 1
    assert length_of_the_way(*job(lie, "median", "median")[:2]) <= 1
    assert length_of_the_way(*job(lie, "mean", "mean")[:2]) > 10


def other_start(*liars):
    """These clients say that the job's seed has given another adapter."""

    def change(client, task, _round, reply):
        if client in liars and task == codec.INITIALIZE:
            for name in [n for n in reply.arrays if "lora_" in n]:
                reply.arrays[name] = reply.arrays[name] + np.float32(7)
        return reply

    return change


@pytest.mark.parametrize("liars", [["site-1"], ["site-1", "site-4"]])
def test_a_few_clients_do_not_choose_the_adapter_that_a_job_starts_from(job, liars):
    told, _, _ = job(other_start(*liars), rounds=1)
    honest = next(m.arrays for client, task, _, m in told.replies if (client, task) == ("site-2", codec.INITIALIZE))
    start = told.tasks[1][2].arrays
    for name in start:
        np.testing.assert_array_equal(start[name], honest[name])


def test_of_the_mean_every_client_moves_the_start(job):
    told, _, _ = job(other_start("site-1"), aggregation="mean", rounds=1)
    honest = next(m.arrays for client, task, _, m in told.replies if (client, task) == ("site-2", codec.INITIALIZE))
    assert any(not np.array_equal(told.tasks[1][2].arrays[name], honest[name]) for name in honest)


def late_with_another_a():
    """The first initialize reply of the last client does not arrive in time; the second tells of another adapter."""
    late, left = other_start("site-5"), [1]

    def change(client, task, round_number, reply):
        if (client, task) == ("site-5", codec.INITIALIZE) and left:
            return left.clear()
        return late(client, task, round_number, reply)

    return change


def test_a_late_client_with_another_frozen_part_does_not_join(job, caplog):
    told, _, summary = job(late_with_another_a(), subspace_dim=7)
    assert told.failure == ""
    assert [r["clients"] for r in summary["rounds"]] == [CLIENTS[:4]] * 3
    assert "site-5 is ready late and cannot join: --subspace_dim 7: " in caplog.text
    assert "at site-5 is another than that of the job's start" in caplog.text
