"""The server of an LP-FL job: what it saves, and whose updates it leaves out."""

import numpy as np
import pytest

from flaretune.engine import codec
from flaretune.methods.lpfl.artifact import load_adapter
from tests.jobs_for_tests import read_summary

CLIENTS = ["site-1", "site-2", "site-3"]


def weighted_mean(told, round_number):
    """The average of what the clients have sent in a round, computed apart from the server's code."""
    replies = [m for _, task, n, m in told.replies if (task, n) == (codec.FIT, round_number)]
    sizes = [m.fields["numbers"]["labelled"] + m.fields["numbers"]["soft_labelled"] for m in replies]
    names = [name for name in replies[0].arrays if name not in ("validation", "validation_loss", "test")]
    return {n: np.average([m.arrays[n].astype(np.float64) for m in replies], axis=0, weights=sizes) for n in names}


def test_a_job_records_its_rounds_and_saves_its_last_and_best_adapter(lpfl_job):
    told, folder = lpfl_job(rounds=3)
    assert told.failure == ""
    assert [(task, n) for task, n, _ in told.tasks] == [
        (codec.INITIALIZE, 0),
        (codec.FIT, 1),
        (codec.FIT, 2),
        (codec.FIT, 3),
        (codec.EVALUATE, 3),
    ]
    evaluated = [codec.read_fit_request(m).evaluate for task, _, m in told.tasks if task == codec.FIT]
    assert evaluated == [False, True, True]  # the start was evaluated as the clients were initialized
    summary = read_summary(folder)
    assert (summary["method"], summary["artifact"], summary["artifact_kind"]) == ("LP-FL", "best_adapter", "adapter")
    assert [r["round"] for r in summary["rounds"]] == [0, 1, 2, 3]
    assert [r["metrics"].get("labelled", 0) for r in summary["rounds"]] == [0, 18, 18, 18]
    assert [r["metrics"].get("soft_labelled", 0) for r in summary["rounds"]] == [
        0,
        0,
        9,
        18,
    ]  # a quarter of 12 at each client
    assert all(r["clients"] == CLIENTS for r in summary["rounds"])
    assert (summary["labelled"], summary["soft_labelled"]) == (18, 18)
    assert summary["trained_parameters"] == 2 * 2 * 2 * 32  # one layer, two modules, A and B, rank 2
    assert summary["zero_shot_accuracy"] == summary["rounds"][0]["accuracy"]
    assert {"train_loss", "soft_label_agreement", "train_loss/site-2", "validation_accuracy/site-3"} <= {
        tag for tag, _, _ in told.scalars
    }

    last, best = load_adapter(folder / "last_adapter"), load_adapter(folder / "best_adapter")
    assert last.result["round"] == 3
    assert best.result["round"] == summary["best_round"]
    for name, values in weighted_mean(told, 3).items():
        np.testing.assert_allclose(last.arrays[name], values, rtol=1e-5, atol=1e-8)
    # what a round starts from is what the one before it ended with, and so is what is evaluated last
    for round_number, (_, _, task) in ((1, told.tasks[2]), (2, told.tasks[3]), (3, told.tasks[4])):
        for name, values in weighted_mean(told, round_number).items():
            np.testing.assert_allclose(task.arrays[name], values, rtol=1e-5, atol=1e-8)


def test_loss_and_agreement_of_a_round_are_means_over_texts(lpfl_job):
    def other_numbers(client, task, round_number, reply):
        if task == codec.FIT:
            i = CLIENTS.index(client)
            soft = {} if client == "site-3" else {"soft_labels_correct": [3, 9][i]}
            fields = {"loss": [0.5, 1.0, 2.0][i], "labelled": [2, 4, 6][i], "soft_labelled": [6, 10, 2][i]}
            reply.fields["numbers"] = {**fields, **soft}
        return reply

    _, folder = lpfl_job(rounds=1, change=other_numbers)
    record = read_summary(folder)["rounds"][1]
    assert record["metrics"]["train_loss"] == pytest.approx((8 * 0.5 + 14 * 1.0 + 8 * 2.0) / 30)
    assert record["metrics"]["soft_label_agreement"] == 12 / 16  # site-3 does not know its truth
    assert (record["metrics"]["labelled"], record["metrics"]["soft_labelled"]) == (12, 18)
    assert record["client_metrics"]["train_loss"] == {"site-1": 0.5, "site-2": 1.0, "site-3": 2.0}


def test_equal_seeds_give_equal_bits_and_others_do_not(lpfl_job):
    arrays = [load_adapter(lpfl_job(str(i), seed=seed)[1] / "last_adapter").arrays for i, seed in enumerate((7, 7, 8))]
    for name, values in arrays[0].items():
        assert values.tobytes() == arrays[1][name].tobytes()
        assert values.tobytes() != arrays[2][name].tobytes()


def test_every_parameter_is_saved_from_the_first_round_that_trained_it(lpfl_job):
    told, folder = lpfl_job(rounds=1, tuning="full")
    assert told.failure == ""
    assert told.tasks[1][2].arrays == {}  # the clients start from the pretrained parameters
    last = load_adapter(folder / "last_adapter")
    assert last.adapter_config is None
    assert load_adapter(folder / "best_adapter").result["round"] == 1
    for name, values in weighted_mean(told, 1).items():
        np.testing.assert_allclose(last.arrays[name], values, rtol=1e-5, atol=1e-7)


# ---- clients that fail ----


def damage(kinds):
    """A change that damages clients' replies from round 2 on, each in its own way."""

    def change(name, task, round_number, reply):
        kind = kinds.get(name, "")
        if not kind or task != codec.FIT or round_number < 2:
            return reply
        array = next(n for n in reply.arrays if ".lora_B." in n)
        if kind == "silent":
            return None
        if kind == "nan":
            reply.arrays[array] = np.full_like(reply.arrays[array], np.nan)
        elif kind == "shape":
            reply.arrays[array] = reply.arrays[array][:1]
        elif kind == "missing":
            del reply.arrays[array]
        elif kind == "extra":
            reply.arrays["lm_head.weight"] = reply.arrays[array]
        elif kind == "nothing":
            reply.fields["numbers"].update(labelled=0, soft_labelled=0)
        return reply

    return change


def test_what_cannot_be_read_is_left_out_of_the_average(lpfl_job, caplog):
    kinds = {f"{kind}-1": kind for kind in ("silent", "nan", "shape", "missing", "extra", "nothing")}
    clients, good = ["site-1", *kinds, "site-3"], ["site-1", "site-3"]
    told, folder = lpfl_job(clients=clients, k_shot=16, unlabelled=64, change=damage(kinds), min_clients=2)
    assert told.failure == ""
    assert [r["clients"] for r in read_summary(folder)["rounds"]] == [sorted(clients), sorted(clients), good]
    told.replies = [entry for entry in told.replies if entry[0] in good]
    last = load_adapter(folder / "last_adapter").arrays
    for name, values in weighted_mean(told, 2).items():
        np.testing.assert_allclose(last[name], values, rtol=1e-5, atol=1e-8)
    for client, kind in kinds.items():
        assert (f"the fit reply of {client} is not used" in caplog.text) == (kind != "silent")


def test_with_fewer_replies_than_needed_the_job_fails_and_saves_what_it_has(lpfl_job):
    told, folder = lpfl_job(change=damage({"site-2": "nan"}), min_clients=3)
    start, end = told.failure.split("array ")
    assert start == "round 2: 2 of 3 clients gave a usable fit reply and 3 are needed; without site-2: "
    assert end.endswith("holds values that are not finite")
    assert [r["round"] for r in read_summary(folder)["rounds"]] == [0]
    assert load_adapter(folder / "last_adapter").result["round"] == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lora_rank": 4}, "the clients do not agree on the options: lora_rank is 2 at site-1 and 4 at site-2"),
        ({"seed": 7}, "the clients do not agree on the options: seed is 42 at site-1 and 7 at site-2"),
        ({"subspace_dim": 5}, "the clients do not agree on the options: subspace_dim is 0 at site-1 and 5 at site-2"),
    ],
)
def test_clients_that_were_told_different_things_do_not_start(lpfl_job, options, sentence):
    told, folder = lpfl_job(client_options={"site-2": options}, clients=CLIENTS[:2])
    panic = told.failure
    assert panic.startswith(sentence)
    assert not folder.exists()


def test_what_is_each_client_s_own_affair_may_differ(lpfl_job):
    own = {"site-2": {"batch_size": 3, "gradient_checkpointing": 1, "cache_mb": 0}}
    told, _ = lpfl_job(rounds=1, client_options=own)
    assert told.failure == ""


def test_layers_below_the_adapters_change_nothing_but_the_work(lpfl_job, tiny):
    upper = {"first_layer": "auto", "target_modules": "all-linear", "model_name": str(tiny("roberta"))}
    (_, kept), (_, computed) = lpfl_job("kept", **upper), lpfl_job("computed", cache_mb=0, **upper)
    arrays, others = (load_adapter(folder / "last_adapter").arrays for folder in (kept, computed))
    assert arrays.keys() == others.keys()
    assert {name.split(".layer.")[1][0] for name in arrays} == {"1"}  # of two layers, 0 and 1
    for name, values in arrays.items():
        np.testing.assert_allclose(values, others[name], rtol=1e-3, atol=1e-4)
    assert read_summary(kept)["rounds"][-1]["accuracy"] == read_summary(computed)["rounds"][-1]["accuracy"]
