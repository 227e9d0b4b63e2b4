"""What one bad client does to a job, and what the user reads of it; with clients that need no model."""

import json
import re

import numpy as np
import pytest

from flaretune.engine import codec
from flaretune.methods.fedbpt import strategy
from flaretune.methods.fedbpt.config import FedBPTConfig
from tests.engine.in_process import run_job
from tests.flare.light_client import LightFedBPT, misbehave

HONEST = [f"site-{i}" for i in range(1, 11)]


@pytest.fixture
def job(tmp_path):
    """Run a job of these clients; returns what was said, and the summary."""

    def run(names, name="results", *, change=misbehave, rounds=6, options=None, **server):
        base = {"intrinsic_dim": 10, "local_iter": 4, "local_popsize": 10, "eval_clients": "all"}
        configs = {client: FedBPTConfig(**{**base, **(options or {}).get(client, {})}) for client in names}
        # few numbers are searched: with its diagonal alone an honest client happens to be far from the others
        server = {"num_rounds": rounds, "covariance": "full", **server}
        told = run_job(LightFedBPT(), configs, tmp_path / name, change=change, **server)
        file = tmp_path / name / "summary.json"
        return told, json.loads(file.read_text(encoding="utf-8")) if file.exists() else None

    return run


def test_replies_that_no_honest_client_sends_are_excluded_and_named(job, caplog):
    told, summary = job(["site-1", "site-2", "damaged"])
    assert told.failure == ""
    assert [r["clients"] for r in summary["rounds"][1:]] == [["site-1", "site-2"]] * 5 + [
        ["damaged", "site-1", "site-2"]
    ]
    reasons = [
        "array 'mean' holds values that are not finite",
        "array 'fitness' holds values that are not finite",
        "array 'mean' has shape (11,), expected (10,)",
        "message schema 999, expected 4: update the older side",
        "'fitness' is -1e+09, which the loss cannot be: it lies between 0 and 1e+100",
    ]
    assert [r["excluded"] for r in summary["rounds"]] == [{}, *({"damaged": reason} for reason in reasons), {}]
    for round_number, reason in enumerate(reasons, start=1):
        assert f"round {round_number}: the fit reply of damaged is not used: {reason}" in caplog.text


@pytest.mark.parametrize("liars", [["liar"], ["liar", "liar-2"]])
def test_liars_are_clipped_and_named(job, caplog, liars):
    clients = [*HONEST[: 10 - len(liars)], *liars]
    told, summary = job(clients)
    assert told.failure == ""
    assert [r["clipped"] for r in summary["rounds"]] == [[], *[liars] * 6]
    names = ", ".join(liars)
    assert f"round 1: the update of {names} is far beyond those of the others: it is clipped" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("n_liars", [1, 2])
def test_accuracy_collapses_by_liars_without_a_limit_alone(job, n_liars):
    clients = [*HONEST[: 10 - n_liars], *["liar", "liar-2"][:n_liars]]
    losses = {}
    for aggregation in ("mean", "clipped", "median"):
        _, summary = job(clients, aggregation, aggregation=aggregation)
        losses[aggregation] = summary["rounds"][-1]["validation_loss"]
        assert summary["rounds"][-1]["accuracy"] == (0.0 if aggregation == "mean" else 1.0)
    assert losses["mean"] > 1e6
    assert max(losses["clipped"], losses["median"]) < 0.1  # 0.69 at the start


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("seconds", 1e6, "'seconds' is 1e+06, and the task was sent 0 seconds ago"),
        ("seconds", -1.0, "'seconds' is -1.0, expected a number between 0 and 1e+100"),
        ("releases", 10**9, "'releases' is 1000000000, and it can have sent {round} noised results"),
        ("queries", 10**9, "'queries' is 1000000000, and 41 follows from the settings"),
        ("example_forwards", 10**9, "'example_forwards' is 1000000000, and 820 follows from the settings"),
    ],
)
def test_what_a_client_cannot_have_spent_is_no_part_of_the_report(job, field, value, reason):
    def change(client, task, _round, reply):
        if (client, task) == ("site-2", codec.FIT):
            reply.fields[field] = value
        return reply

    told, summary = job(["site-1", "site-2", "site-3"], change=change, rounds=2)
    assert told.failure == ""
    reasons = [{"site-2": reason.format(round=n)} for n in (1, 2)]
    excluded = json.dumps([r["excluded"] for r in summary["rounds"]])
    assert json.loads(re.sub(r"\d+ seconds ago", "0 seconds ago", excluded)) == [{}, *reasons]
    assert summary["queries"] == 2 * 2 * 41
    assert all(r["seconds"] >= r["overhead_seconds"] >= 0 for r in summary["rounds"])
    assert {r["releases"] for r in summary["rounds"]} == {0}


def test_more_validation_texts_than_a_client_can_have_do_not_choose_the_round(job):
    def change(client, task, _round, reply):
        if client == "site-2" and task != codec.INITIALIZE and "validation" in reply.arrays:
            reply.arrays |= {"validation": np.array([10**6, 10**6]), "validation_loss": np.array([0.0, 1e6])}
        return reply

    told, summary = job(["site-1", "site-2", "site-3"], change=change, rounds=2, aggregation="mean")
    assert told.failure == ""
    reason = "'validation_loss' tells of 1000000 texts, and --k_shot gives a client 32 at the most"
    assert [r["excluded"] for r in summary["rounds"]] == [{}, {}, {"site-2": reason}]
    assert summary["rounds"][2]["client_accuracy"].keys() == {"site-1", "site-3"}


# ---- clients that are ready late ----


def not_in_time(client: str, times: int):
    """A change by which a client's first replies to initialize do not arrive."""
    left = [times]

    def change(name, task, _round, reply):
        if (name, task) == (client, codec.INITIALIZE) and left[0]:
            left[0] -= 1
            return None
        return reply

    return change


def test_a_client_that_is_ready_late_joins_the_rounds_that_come(job, caplog):
    clients = ["site-1", "site-2", "site-3"]
    told, summary = job(clients, change=not_in_time("site-1", 1), rounds=3)
    assert told.failure == ""
    assert [r["clients"] for r in summary["rounds"]] == [["site-2", "site-3"], clients, clients, clients]
    assert summary["rounds"][0]["excluded"] == {"site-1": "no reply (its own log says why)"}
    assert summary["clients"] == ["site-2", "site-3", "site-1"]
    assert summary["dtypes"] == dict.fromkeys(clients, "float32")
    sent = [task for task, _, _ in told.tasks]
    assert sent == [codec.INITIALIZE, codec.INITIALIZE, *[codec.FIT] * 3, codec.EVALUATE]
    assert codec.read_clients(told.tasks[1][2]) == clients  # whose shares of a common data set it knows
    assert summary["rounds"][1]["client_metrics"]["fitness"].keys() == set(clients)


def test_the_zero_shot_metric_of_a_client_that_is_ready_late_counts(job):
    late, counts = not_in_time("site-1", 1), {"site-1": [3, 8], "site-2": [1, 2]}

    def change(client, task, round_number, reply):
        if task == codec.INITIALIZE:
            reply.arrays["zero_shot"] = np.array(counts[client])
        return late(client, task, round_number, reply)

    _, summary = job(["site-1", "site-2"], change=change, rounds=1)
    assert summary["zero_shot_accuracy"] == pytest.approx((3 + 1) / (8 + 2))


def test_a_client_that_never_gets_ready_is_not_waited_for(job):
    told, summary = job(["site-1", "site-2"], change=not_in_time("site-1", 9), rounds=2)
    assert told.failure == ""
    assert [r["clients"] for r in summary["rounds"]] == [["site-2"]] * 3


def test_a_client_that_was_told_something_else_cannot_join_late(job, caplog):
    own = {"site-1": {"alpha": 2.0}}
    told, summary = job(["site-1", "site-2"], change=not_in_time("site-1", 1), options=own, rounds=2)
    assert told.failure == ""
    assert [r["clients"] for r in summary["rounds"]] == [["site-2"]] * 3
    assert (
        "site-1 is ready late and cannot join: the clients do not agree on the options: alpha is 1.0 at site-2 and "
        "2.0 at site-1; give all clients the same" in caplog.text
    )


def test_results_that_cannot_be_written_end_the_job_with_one_sentence(job, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "round_0001.npz")

    monkeypatch.setattr(strategy, "keep_results", full)
    told, _ = job(["site-1"], rounds=2)
    assert told.failure == "the results cannot be written: No space left on device (round_0001.npz)"
