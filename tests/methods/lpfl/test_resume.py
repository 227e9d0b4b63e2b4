"""An LP-FL job that begins with another job's adapter, or resumes where it was stopped; what is refused."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from flaretune.engine import codec
from flaretune.errors import UserError
from flaretune.methods.lpfl.artifact import load_adapter, save_adapter
from tests.engine.in_process import assert_same_rounds, no_replies_from
from tests.jobs_for_tests import read_summary

# ---- from an adapter ----


@pytest.mark.parametrize("options", [{}, {"tuning": "full"}])
def test_a_job_begins_where_another_ended(lpfl_job, options):
    _, first = lpfl_job("first", **options)
    told, second = lpfl_job("second", rounds=1, init_adapter=first / "last_adapter", **options)
    assert told.failure == ""
    begun, ended = read_summary(second)["rounds"][0], read_summary(first)["rounds"][-1]
    for key in ("accuracy", "validation_accuracy", "validation_loss", "client_accuracy"):
        assert begun[key] == ended[key]
    assert read_summary(second)["zero_shot_accuracy"] == read_summary(first)["zero_shot_accuracy"]
    assert [r["round"] for r in read_summary(second)["rounds"]] == [0, 1]
    _, _, task = told.tasks[1]
    last = load_adapter(first / "last_adapter").arrays
    for name, values in task.arrays.items():
        np.testing.assert_array_equal(values, last[name])
    assert set(last) == set(task.arrays)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made_with", "begun_with", "sentence"),
    [
        ({}, {"lora_rank": 4}, "does not fit this job: .*lora_A.weight has the shape .2, 32. there and .4, 32. at"),
        ({}, {"target_modules": "query"}, "does not fit this job: .*value.lora_A.weight has the shape .* and None at"),
        (
            {},
            {"lora_alpha": 4.0},
            "does not fit this job: it was trained with --lora_alpha 16.0 and .* told 4.0",
        ),
        ({"tuning": "full"}, {}, "does not fit this job"),
        ({}, {"tuning": "full"}, "does not fit this job"),
        ({"model_name": "llama"}, {}, "does not fit this job"),
        ({"tuning": "full", "model_name": "llama"}, {"tuning": "full"}, "does not fit this job"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(lpfl_job, folders, made_with, begun_with, sentence):
    made_with = {**made_with, **({"model_name": folders["llama"]} if "model_name" in made_with else {})}
    _, first = lpfl_job("first", rounds=1, **made_with)
    told, second = lpfl_job("second", rounds=1, init_adapter=first / "last_adapter", **begun_with)
    assert told.failure.startswith(f"--init_adapter: {first / 'last_adapter'} ")
    with pytest.raises(UserError, match=sentence):
        raise UserError(told.failure)
    assert "\n" not in told.failure
    assert not second.exists()


def test_an_adapter_that_is_not_there_is_named(lpfl_job, tmp_path):
    told, folder = lpfl_job(init_adapter=tmp_path / "nowhere")
    assert told.failure == (
        f"--init_adapter: adapter folder {tmp_path / 'nowhere'} does not exist; a job leaves it as best_adapter"
    )
    assert not folder.exists()


def test_frozen_parts_must_be_those_that_the_clients_have(lpfl_job, tmp_path):
    _, first = lpfl_job("first", rounds=1, subspace_dim=7)
    same, _ = lpfl_job("same", rounds=1, subspace_dim=7, init_adapter=first / "last_adapter")
    assert same.failure == ""
    artifact = load_adapter(first / "last_adapter")
    name = next(n for n in artifact.arrays if ".lora_A." in n)
    moved = replace(artifact, arrays={**artifact.arrays, name: artifact.arrays[name] + 1})
    save_adapter(moved, tmp_path / "moved")
    told, _ = lpfl_job("other", rounds=1, subspace_dim=7, init_adapter=tmp_path / "moved")
    other = f"{name} at site-1 is another than that of --init_adapter {tmp_path / 'moved'};"
    assert f"--subspace_dim 7: {other}" in told.failure


def other_a(*clients):
    """These clients have drawn another A than the job's seed gives."""

    def change(client, task, _round, reply):
        if client in clients and task == codec.INITIALIZE:
            name = next(n for n in reply.arrays if ".lora_A." in n)
            reply.arrays[name] = reply.arrays[name] * np.float32(1.5)
        return reply

    return change


@pytest.mark.parametrize("client", ["site-1", "site-3"])
def test_a_client_with_another_frozen_part_than_most_is_left_out_and_named(lpfl_job, client, caplog):
    told, folder = lpfl_job(subspace_dim=7, change=other_a(client))
    assert told.failure == ""
    others = [s for s in ("site-1", "site-2", "site-3") if s != client]
    rounds = read_summary(folder)["rounds"]
    assert [r["clients"] for r in rounds] == [others] * 3
    assert "--subspace_dim 7: " in rounds[0]["excluded"][client]
    assert f" at {client} is another than that of the job's start; every client needs the same seed" in caplog.text
    honest = next(m for s, task, _, m in told.replies if (s, task) == ("site-2", codec.INITIALIZE))
    last = load_adapter(folder / "last_adapter").arrays
    for name in (n for n in last if ".lora_A." in n):
        np.testing.assert_array_equal(last[name], honest.arrays[name])


def test_where_a_is_trained_all_start_from_the_same_whatever_they_have_drawn(lpfl_job):
    told, folder = lpfl_job(rounds=1, change=other_a("site-1"))
    assert told.failure == ""
    assert read_summary(folder)["rounds"][1]["clients"] == ["site-1", "site-2", "site-3"]


@pytest.mark.parametrize("client", ["site-3", "site-1"])
def test_too_few_clients_with_the_frozen_part_of_most_end_the_job(lpfl_job, client):
    told, folder = lpfl_job(subspace_dim=7, change=other_a(client), min_clients=3)
    assert told.failure.startswith("--subspace_dim 7: ")
    assert f" at {client} is another than that of the job's start" in told.failure
    assert not folder.exists()


def test_where_no_frozen_part_is_that_of_most_the_job_ends(lpfl_job):
    def each_another(client, task, round_number, reply):
        for _ in range(int(client[-1])):
            reply = other_a(client)(client, task, round_number, reply)
        return reply

    told, _ = lpfl_job(subspace_dim=7, change=each_another)
    assert told.failure.startswith("--subspace_dim 7: ")


def test_a_run_is_not_resumed_with_another_frozen_part(lpfl_job, tmp_path):
    """As a new version of torch may draw it: B was trained for the one that the run was begun with."""
    checkpoint = tmp_path / "checkpoint"
    lpfl_job("stopped", rounds=4, subspace_dim=7, change=no_replies_from(3), checkpoint=checkpoint)
    everywhere = other_a("site-1", "site-2", "site-3")
    told, _ = lpfl_job("on", rounds=4, subspace_dim=7, change=everywhere, checkpoint=checkpoint)
    assert told.failure.startswith("--subspace_dim 7: ")
    assert " at site-1 is another than that of the job's start" in told.failure


# ---- from where it was stopped ----


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"subspace_dim": 7}, {"tuning": "full", "soft_labels": "off"}])
def test_a_run_is_resumed_as_if_it_had_not_been_stopped(lpfl_job, tmp_path, options):
    _, whole = lpfl_job("whole", rounds=4, **options)
    for stopped_in in (1, 3):
        checkpoint = tmp_path / f"checkpoint {stopped_in}"
        stopped, _ = lpfl_job(
            f"stopped {stopped_in}", rounds=4, change=no_replies_from(stopped_in), checkpoint=checkpoint, **options
        )
        assert stopped.failure
        told, folder = lpfl_job(f"on {stopped_in}", rounds=4, checkpoint=checkpoint, **options)
        assert told.failure == ""
        rounds = [n for task, n, _ in told.tasks if task == codec.FIT]
        assert rounds == list(range(stopped_in, 5))
        assert_same_rounds(folder, whole, "labelled", "soft_labelled")
        for name in ("best_adapter", "last_adapter"):
            arrays, again = load_adapter(whole / name).arrays, load_adapter(folder / name).arrays
            assert arrays.keys() == again.keys()
            assert all(np.array_equal(arrays[key], again[key]) for key in arrays)
        assert {n for tag, _, n in told.scalars if tag == "validation_accuracy"} == set(range(5))  # in TensorBoard too


def test_a_client_without_its_soft_labels_says_so_and_labels_anew(lpfl_job, tmp_path, caplog):
    lpfl_job("stopped", rounds=4, change=no_replies_from(4), checkpoint=tmp_path / "checkpoint")
    shutil.rmtree(tmp_path / "checkpoint" / "clients")
    told, folder = lpfl_job("on", rounds=4, checkpoint=tmp_path / "checkpoint")
    assert told.failure == ""
    assert "goes on after round 3, and this client has no soft labels of that run" in caplog.text
    before, first = (r["metrics"]["soft_labelled"] for r in read_summary(folder)["rounds"][3:5])
    assert 0 < first < before  # one round's portion again
