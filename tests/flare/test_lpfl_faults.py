"""What one bad site does to an LP-FL job, and what the user reads of it."""

import json

import numpy as np
import pytest
from flaretune.flare.lpfl_client import LPFLTasks
from flaretune.flare.lpfl_controller import LPFLController

from flaretune.flare import lpfl_messages, messages
from flaretune.methods.lpfl.artifact import load_adapter
from flaretune.methods.lpfl.config import LPFLConfig
from tests.flare.federation import federate
from tests.learnable import write_reviews
from tests.models_for_tests import save_tiny_model

SITES = [f"site-{i}" for i in range(1, 6)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lpfl_faults")
    model = save_tiny_model("roberta", folder / "roberta")
    return {"model_name": str(model), "dataset": str(write_reviews(folder / "data", n_train=100, n_test=20))}


@pytest.fixture
def job(folders, tmp_path, monkeypatch, as_in_a_job):
    """Run a job of two rounds and five sites; returns what was said, the folder of its results, and the summary."""
    monkeypatch.chdir(tmp_path)

    def run(change, name="results", aggregation="clipped", **options):
        small = {"k_shot": 10, "soft_labels": "off", "lora_rank": 2, "local_steps": 2, "dtype": "float32"}
        config = LPFLConfig(**{**folders, **small, **options})
        controller = LPFLController(num_rounds=2, aggregation=aggregation)
        told = federate(controller, {s: LPFLTasks(config) for s in SITES}, tmp_path / name, monkeypatch, change)
        summary = json.loads((tmp_path / name / "summary.json").read_text(encoding="utf-8"))
        return told, tmp_path / name, summary

    return run


def lie(site, task, _round, answer):
    """The second site reverses and enlarges its adapter, and claims to have trained on very many texts."""
    if (site, task) == ("site-2", lpfl_messages.TRAIN):
        for name in [n for n in answer.params if "lora_" in n]:
            answer.params[name] = -1000 * answer.params[name]
        answer.meta["flaretune"]["labelled"] = 20  # k for each class: the most that a site may have
    return answer


def length_of_the_way(told, folder) -> float:
    """How far the last round has taken the adapter, in lengths of the longest update of an honest site."""
    start = next(m.params for task, n, m in told.tasks if (task, n) == (lpfl_messages.TRAIN, 2))
    last = load_adapter(folder / "last_adapter").arrays

    def distance(arrays):
        return np.sqrt(sum(np.square(arrays[name].astype(np.float64) - start[name]).sum() for name in start))

    honest = [
        m.params for site, task, n, m in told.answers if (task, n) == (lpfl_messages.TRAIN, 2) and site != "site-2"
    ]
    return distance(last) / max(map(distance, honest))


def test_a_liar_is_held_to_the_others_and_named(job, caplog):
    told, folder, summary = job(lie)
    assert told.panics == []
    assert [r["limited"] for r in summary["rounds"]] == [[], ["site-2"], ["site-2"]]
    assert "round 2: the answer of site-2 is far beyond those of the others: it is held to them" in caplog.text
    assert length_of_the_way(told, folder) <= 1
    assert length_of_the_way(*job(lie, "median", "median")[:2]) <= 1
    assert length_of_the_way(*job(lie, "mean", "mean")[:2]) > 10


def other_start(*liars):
    """These sites say that the job's seed has given another adapter."""

    def change(site, task, _round, answer):
        if site in liars and task == messages.SETUP:
            for name in [n for n in answer.params if "lora_" in n]:
                answer.params[name] = answer.params[name] + np.float32(7)
        return answer

    return change


@pytest.mark.parametrize("liars", [["site-1"], ["site-1", "site-4"]])
def test_a_few_sites_do_not_choose_the_adapter_that_a_job_starts_from(job, liars):
    told, _, _ = job(other_start(*liars))
    honest = next(m.params for site, task, _, m in told.answers if (site, task) == ("site-2", messages.SETUP))
    start = told.tasks[1][2].params
    for name in start:
        np.testing.assert_array_equal(start[name], honest[name])
    told, _, _ = job(other_start("site-1"), "mean", "mean")
    assert any(not np.array_equal(told.tasks[1][2].params[name], honest[name]) for name in start)


def late_with_another_a():
    """The first setup answer of the last site does not arrive in time; the second tells of another adapter."""
    late, left = other_start("site-5"), [1]

    def change(site, task, round_number, answer):
        if (site, task) == ("site-5", messages.SETUP) and left:
            return left.clear()
        return late(site, task, round_number, answer)

    return change


def test_a_late_site_with_another_frozen_part_does_not_join(job, caplog):
    told, _, summary = job(late_with_another_a(), freeze_a=1)
    assert told.panics == []
    assert [r["sites"] for r in summary["rounds"]] == [SITES[:4]] * 3
    assert "site-5 is ready late and cannot join: --freeze_a 1: " in caplog.text
    assert "at site-5 is another than that of the job's start" in caplog.text
