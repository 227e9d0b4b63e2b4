"""What one bad site does to a job, and what the user reads of it; in this process, with sites that need no model."""

import json

import numpy as np
import pytest
from flaretune.flare.fedbpt_controller import FedBPTController

from flaretune.flare import fedbpt_client, fedbpt_controller, fedbpt_messages, messages
from flaretune.methods.fedbpt.config import FedBPTConfig
from tests.flare import light_site
from tests.flare.federation import federate
from tests.flare.light_site import misbehave

HONEST = [f"site-{i}" for i in range(1, 11)]


@pytest.fixture
def job(tmp_path, monkeypatch, as_in_a_job):
    """Run a job of these sites; returns what was said, and the summary."""
    monkeypatch.setattr(fedbpt_client, "open_site", light_site.open_site)

    def run(names, name="results", *, change=misbehave, rounds=6, options=None, **server):
        config = FedBPTConfig(intrinsic_dim=10, local_iter=4, eval_clients="all")
        # few numbers are searched: with its diagonal alone an honest site happens to be far from the others
        controller = FedBPTController(num_rounds=rounds, **{"covariance": "full", **server})
        sites = {site: fedbpt_client.FedBPTTasks(config) for site in names}
        for site, own in (options or {}).items():
            sites[site] = fedbpt_client.FedBPTTasks(FedBPTConfig(**{**vars(config), **own}))
        told = federate(controller, sites, tmp_path / name, monkeypatch, change)
        file = tmp_path / name / "summary.json"
        return told, json.loads(file.read_text(encoding="utf-8")) if file.exists() else None

    return run


def test_answers_that_no_honest_site_sends_are_left_out_and_named(job, caplog):
    told, summary = job(["site-1", "site-2", "damaged"])
    assert told.panics == []
    assert [r["sites"] for r in summary["rounds"][1:]] == [["site-1", "site-2"]] * 5 + [["site-1", "site-2", "damaged"]]
    reasons = [
        "array 'mean' holds values that are not finite",
        "array 'fitness' holds values that are not finite",
        "array 'mean' has shape (11,), expected (10,)",
        "message schema 999, expected 3: update the older side",
        "'fitness' is -1e+09, which the loss cannot be: it lies between 0 and 1e+100",
    ]
    assert [r["left_out"] for r in summary["rounds"]] == [{}, *({"damaged": reason} for reason in reasons), {}]
    for round_number, reason in enumerate(reasons, start=1):
        assert f"round {round_number}: the search answer of damaged is left out: {reason}" in caplog.text


@pytest.mark.parametrize("liars", [["liar"], ["liar", "liar-2"]])
def test_liars_are_held_to_the_others_and_named(job, caplog, liars):
    sites = [*HONEST[: 10 - len(liars)], *liars]
    told, summary = job(sites)
    assert told.panics == []
    assert [r["limited"] for r in summary["rounds"]] == [[], *[liars] * 6]
    names = ", ".join(liars)
    assert f"round 1: the answer of {names} is far beyond those of the others: it is held to them" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("n_liars", [1, 2])
def test_accuracy_collapses_by_liars_without_a_bound_alone(job, n_liars):
    sites = [*HONEST[: 10 - n_liars], *["liar", "liar-2"][:n_liars]]
    losses = {}
    for aggregation in ("mean", "clipped", "median"):
        _, summary = job(sites, aggregation, aggregation=aggregation)
        losses[aggregation] = summary["rounds"][-1]["dev_loss"]
        assert summary["rounds"][-1]["accuracy"] == (0.0 if aggregation == "mean" else 1.0)
    assert losses["mean"] > 1e6
    assert max(losses["clipped"], losses["median"]) < 0.1  # 0.69 at the start


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("seconds", 1e6, "'seconds' is 1e+06, and it was asked 0 seconds ago"),
        ("seconds", -1.0, "'seconds' is -1.0, expected a number between 0 and 1e+100"),
        ("releases", 10**9, "'releases' is 1000000000, and it can have given {round} noised answers"),
        ("queries", 10**9, "'queries' is 1000000000, and 21 follows from the settings"),
        ("example_forwards", 10**9, "'example_forwards' is 1000000000, and 420 follows from the settings"),
    ],
)
def test_what_a_site_cannot_have_spent_is_left_out_of_the_report(job, field, value, reason):
    def change(site, task, _round, answer):
        if (site, task) == ("site-2", fedbpt_messages.SEARCH):
            answer.meta["flaretune"][field] = value
        return answer

    told, summary = job(["site-1", "site-2", "site-3"], change=change, rounds=2)
    assert told.panics == []
    reasons = [{"site-2": reason.format(round=n)} for n in (1, 2)]
    assert [r["left_out"] for r in summary["rounds"]] == [{}, *reasons]
    assert summary["queries"] == 2 * 2 * 21
    assert all(r["seconds"] >= r["overhead_seconds"] >= 0 for r in summary["rounds"])
    assert {r["releases"] for r in summary["rounds"]} == {0}


def test_more_development_texts_than_a_site_can_have_do_not_choose_the_round(job):
    def change(site, task, _round, answer):
        if site == "site-2" and task != messages.SETUP and "dev" in answer.params:
            answer.params |= {"dev": np.array([10**6, 10**6]), "dev_loss": np.array([0.0, 1e6])}
        return answer

    told, summary = job(["site-1", "site-2", "site-3"], change=change, rounds=2, aggregation="mean")
    assert told.panics == []
    reason = "'dev_loss' tells of 1000000 texts, and --k_shot gives a site 32 at the most"
    assert [r["left_out"] for r in summary["rounds"]] == [{}, {}, {"site-2": reason}]
    assert summary["rounds"][2]["site_accuracy"].keys() == {"site-1", "site-3"}


# ---- sites that are ready late ----


def not_in_time(site: str, times: int):
    """A change by which a site's first setup answers do not arrive."""
    left = [times]

    def change(name, task, _round, answer):
        if (name, task) == (site, messages.SETUP) and left[0]:
            left[0] -= 1
            return None
        return answer

    return change


def test_a_site_that_is_ready_late_joins_the_rounds_that_come(job, caplog):
    sites = ["site-1", "site-2", "site-3"]
    told, summary = job(sites, change=not_in_time("site-1", 1), rounds=3)
    assert told.panics == []
    assert [r["sites"] for r in summary["rounds"]] == [["site-2", "site-3"], sites, sites, sites]
    assert summary["rounds"][0]["left_out"] == {"site-1": "no answer (its own log says why)"}
    assert summary["sites"] == ["site-2", "site-3", "site-1"]
    assert summary["dtypes"] == dict.fromkeys(sites, "float32")
    asked = [task for task, _, _ in told.tasks]
    assert asked == [messages.SETUP, messages.SETUP, *[fedbpt_messages.SEARCH] * 3, messages.EVALUATE]
    assert messages.read_sites(told.tasks[1][2]) == sites  # whose shares of a common data set it knows
    assert summary["rounds"][1]["site_fitness"].keys() == set(sites)


def test_a_site_that_never_gets_ready_is_not_waited_for(job):
    told, summary = job(["site-1", "site-2"], change=not_in_time("site-1", 9), rounds=2)
    assert told.panics == []
    assert [r["sites"] for r in summary["rounds"]] == [["site-2"]] * 3


def test_a_site_that_was_told_something_else_cannot_join_late(job, caplog):
    own = {"site-1": {"alpha": 2.0}}
    told, summary = job(["site-1", "site-2"], change=not_in_time("site-1", 1), options=own, rounds=2)
    assert told.panics == []
    assert [r["sites"] for r in summary["rounds"]] == [["site-2"]] * 3
    assert (
        "site-1 is ready late and cannot join: the sites do not agree on the options: alpha is 1.0 at site-2 and "
        "2.0 at site-1; give all sites the same" in caplog.text
    )


def test_results_that_cannot_be_written_end_the_job_with_one_sentence(job, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "round_0001.npz")

    monkeypatch.setattr(fedbpt_controller, "keep_answers", full)
    told, _ = job(["site-1"], rounds=2)
    assert told.panics == ["the results cannot be written: No space left on device (round_0001.npz)"]
