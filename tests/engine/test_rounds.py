"""A whole job of each method on a tiny model, without NVFlare: the rounds, what they add up to, and what is left."""

import json

import numpy as np
import pytest

from flaretune.engine import codec
from flaretune.methods.fedbpt.artifact import load_prompt
from flaretune.methods.lpfl.artifact import load_adapter
from flaretune.methods.registry import find_method
from tests.engine.whole_jobs import CLIENTS, JOBS, ROUNDS, run_small_job

EXPECTED_TASKS = [(codec.INITIALIZE, 0), *((codec.FIT, n) for n in range(1, ROUNDS + 1)), (codec.EVALUATE, ROUNDS)]


@pytest.fixture(scope="module")
def jobs(roberta, tmp_path_factory):
    """By method: what was said, and the folder of the results."""
    folder = tmp_path_factory.mktemp("rounds")
    return {name: (run_small_job(name, roberta, folder, name), folder / name) for name in JOBS}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_runs_its_rounds_with_all_clients(jobs, name):
    told, folder = jobs[name]
    assert (told.failure, told.client_failures) == ("", {})
    assert [(task, n) for task, n, _ in told.tasks] == EXPECTED_TASKS
    assert sorted((client, task, n) for client, task, n, _ in told.replies) == sorted(
        (client, task, n) for task, n in EXPECTED_TASKS for client in CLIENTS
    )
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert [r["round"] for r in summary["rounds"]] == list(range(ROUNDS + 1))
    assert all((r["clients"], r["excluded"]) == (CLIENTS, {}) for r in summary["rounds"])
    assert (folder / find_method(name).best).exists()


@pytest.mark.parametrize("name", JOBS)
def test_accuracies_are_the_clients_counts_added_up(jobs, name):
    """The counts of where a round starts belong to the round before."""
    told, _ = jobs[name]
    for record, (task, round_number) in zip(told.records, [*EXPECTED_TASKS[:1], *EXPECTED_TASKS[2:]], strict=True):
        replies = [m.arrays for _, t, n, m in told.replies if (t, n) == (task, round_number)]
        for field, counts in (("validation_accuracy", "validation"), ("accuracy", "test")):
            correct, of = np.sum([arrays[counts] for arrays in replies], axis=0)
            assert getattr(record, field) == pytest.approx(correct / of)
        loss, of = np.sum([arrays["validation_loss"] for arrays in replies], axis=0)
        assert record.validation_loss == pytest.approx(loss / of)


def test_fedbpt_evaluates_what_the_next_round_would_start_from(jobs):
    told, folder = jobs["fedbpt"]
    means = [m.arrays["mean"] for task, _, m in told.tasks if task != codec.INITIALIZE]
    assert all(mean.shape == (6,) for mean in means)
    assert not np.array_equal(means[0], means[1])
    assert any(np.array_equal(load_prompt(folder / "best_prompt.safetensors").point, mean) for mean in means)


def test_lpfl_averages_what_its_clients_send_by_their_numbers_of_texts(jobs):
    """FedAvg where no update is clipped (arXiv 1602.05629)."""
    told, folder = jobs["lpfl"]
    assert [record.clipped for record in told.records] == [[]] * (ROUNDS + 1)
    sent = [m.arrays for task, _, m in told.tasks if task != codec.INITIALIZE]
    for round_number in range(1, ROUNDS + 1):
        replies = [m for _, task, n, m in told.replies if (task, n) == (codec.FIT, round_number)]
        n_texts = [m.fields["numbers"]["labelled"] + m.fields["numbers"]["soft_labelled"] for m in replies]
        for array, values in sent[round_number].items():
            expected = np.average([m.arrays[array].astype(np.float64) for m in replies], axis=0, weights=n_texts)
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-7)
    best = load_adapter(folder / find_method("lpfl").best).arrays
    assert any(all(np.array_equal(best[n], arrays[n]) for n in arrays) for arrays in sent)
