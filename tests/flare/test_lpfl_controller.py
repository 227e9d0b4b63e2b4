"""The server of an LP-FL job: what it keeps, what it leaves out, and what it refuses to go on from."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from flaretune.config.lpfl import LPFLConfig
from flaretune.errors import UserError
from flaretune.flare import lpfl_messages, messages
from flaretune.flare.lpfl_client import LPFLTasks
from flaretune.flare.lpfl_controller import LPFLController
from flaretune.lpfl.artifact import load_adapter, save_adapter
from tests.flare.federation import federate
from tests.learnable import write_reviews
from tests.models_for_tests import save_tiny_model

SITES = ["site-1", "site-2", "site-3"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lpfl_controller")
    models = {family: str(save_tiny_model(family, folder / family)) for family in ("roberta", "llama")}
    return {**models, "data": str(write_reviews(folder / "data", n_train=150, n_test=30))}


@pytest.fixture
def job(folders, tmp_path, monkeypatch, as_in_a_job):
    """Run a job in this process; returns what was said, and the folder of its results."""
    (tmp_path / "workspace" / "job" / "app").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "workspace" / "job" / "app")

    def run(
        name="results", *, rounds=2, change=None, init_adapter="", min_clients=1, site_options=None, checkpoint="",
        **options,
    ):  # fmt: skip
        common = {
            "model_name": folders["roberta"],
            "dataset": folders["data"],
            "k_shot": 9,
            "unlabelled": 36,
            "lora_rank": 2,
            "local_epochs": 1,
            "dtype": "float32",
            "eval_clients": "all",
            **options,
        }
        sites = {site: LPFLTasks(LPFLConfig(**{**common, **(site_options or {}).get(site, {})})) for site in SITES}
        server = {"init_adapter": str(init_adapter), "checkpoint": str(checkpoint)}
        controller = LPFLController(num_rounds=rounds, min_clients=min_clients, **server)
        return federate(controller, sites, tmp_path / name, monkeypatch, change), tmp_path / name

    return run


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def weighted_mean(told, round_number):
    """The average of what the sites have sent in a round, computed apart from the server's code."""
    answers = [m for _, task, n, m in told.answers if (task, n) == (lpfl_messages.TRAIN, round_number)]
    sizes = [m.meta["flaretune"]["labelled"] + m.meta["flaretune"]["soft_labelled"] for m in answers]
    names = [name for name in answers[0].params if name not in ("dev", "dev_loss", "test")]
    return {n: np.average([m.params[n].astype(np.float64) for m in answers], axis=0, weights=sizes) for n in names}


def test_a_job_keeps_its_rounds_and_its_last_and_best_adapter(job):
    told, folder = job(rounds=3)
    assert told.panics == []
    assert [(task, n) for task, n, _ in told.tasks] == [
        (messages.SETUP, 0),
        (lpfl_messages.TRAIN, 1),
        (lpfl_messages.TRAIN, 2),
        (lpfl_messages.TRAIN, 3),
        (messages.EVALUATE, 3),
    ]
    asked = [lpfl_messages.read_train_task(m)[2] for task, _, m in told.tasks if task == lpfl_messages.TRAIN]
    assert asked == [False, True, True]  # the start was evaluated in the setup
    summary = read_summary(folder)
    assert (summary["method"], summary["artifact"], summary["artifact_kind"]) == ("LP-FL", "best_adapter", "adapter")
    assert [r["round"] for r in summary["rounds"]] == [0, 1, 2, 3]
    assert [r["labelled"] for r in summary["rounds"]] == [0, 18, 18, 18]
    assert [r["soft_labelled"] for r in summary["rounds"]] == [0, 0, 9, 18]  # a quarter of 12 at each site
    assert all(r["sites"] == SITES for r in summary["rounds"])
    assert (summary["labelled"], summary["soft_labelled"]) == (18, 18)
    assert summary["trained_parameters"] == 2 * 2 * 2 * 2 * 32  # two layers, two modules, A and B, rank 2
    assert summary["zero_shot_accuracy"] == summary["rounds"][0]["accuracy"]
    assert {"train_loss", "soft_label_agreement", "train_loss/site-2", "dev_accuracy/site-3"} <= {
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
            np.testing.assert_allclose(task.params[name], values, rtol=1e-5, atol=1e-8)


def test_loss_and_agreement_of_a_round_are_means_over_texts(job):
    def other_numbers(site, task, round_number, answer):
        if task == lpfl_messages.TRAIN:
            i = SITES.index(site)
            soft = {} if site == "site-3" else {"soft_labels_right": [3, 9][i]}
            fields = {"loss": [0.5, 1.0, 2.0][i], "labelled": [2, 4, 6][i], "soft_labelled": [6, 10, 2][i]}
            answer.meta["flaretune"].pop("soft_labels_right", None)
            answer.meta["flaretune"].update({**fields, **soft})
        return answer

    _, folder = job(rounds=1, change=other_numbers)
    record = read_summary(folder)["rounds"][1]
    assert record["train_loss"] == pytest.approx((8 * 0.5 + 14 * 1.0 + 8 * 2.0) / 30)
    assert record["soft_label_agreement"] == 12 / 16  # site-3 does not know its truth
    assert (record["labelled"], record["soft_labelled"]) == (12, 18)
    assert record["site_loss"] == {"site-1": 0.5, "site-2": 1.0, "site-3": 2.0}


def test_equal_seeds_give_equal_bits_and_others_do_not(job):
    arrays = [load_adapter(job(str(i), seed=seed)[1] / "last_adapter").arrays for i, seed in enumerate((7, 7, 8))]
    for name, values in arrays[0].items():
        assert values.tobytes() == arrays[1][name].tobytes()
        assert values.tobytes() != arrays[2][name].tobytes()


def test_with_a_frozen_it_stays_and_does_not_travel(job):
    told, folder = job(freeze_a=1)
    setup = next(m for _, task, _, m in told.answers if task == messages.SETUP)
    for task, _, message in told.tasks[1:]:
        assert message.params, task
        assert all(".lora_B." in name for name in message.params)
    last = load_adapter(folder / "last_adapter").arrays
    frozen = [name for name in last if ".lora_A." in name]
    assert len(frozen) == len(last) / 2 == 4
    for name in frozen:
        np.testing.assert_array_equal(last[name], setup.params[name])
    assert any(np.any(values) for name, values in last.items() if ".lora_B." in name)


def test_every_parameter_is_kept_from_the_first_round_that_trained_it(job):
    told, folder = job(rounds=1, tuning="full")
    assert told.panics == []
    assert told.tasks[1][2].params == {}  # the sites start from the pretrained parameters
    last = load_adapter(folder / "last_adapter")
    assert last.adapter_config is None
    assert load_adapter(folder / "best_adapter").result["round"] == 1
    for name, values in weighted_mean(told, 1).items():
        np.testing.assert_allclose(last.arrays[name], values, rtol=1e-5, atol=1e-7)


# ---- sites that fail ----


def damage(site, kind):
    """A change that damages a site's answers from round 2 on."""

    def change(name, task, round_number, answer):
        if name != site or task != lpfl_messages.TRAIN or round_number < 2:
            return answer
        array = next(n for n in answer.params if ".lora_B." in n)
        if kind == "silent":
            return None
        if kind == "nan":
            answer.params[array] = np.full_like(answer.params[array], np.nan)
        elif kind == "shape":
            answer.params[array] = answer.params[array][:1]
        elif kind == "missing":
            del answer.params[array]
        elif kind == "extra":
            answer.params["lm_head.weight"] = answer.params[array]
        elif kind == "nothing":
            answer.meta["flaretune"].update(labelled=0, soft_labelled=0)
        return answer

    return change


@pytest.mark.parametrize("kind", ["silent", "nan", "shape", "missing", "extra", "nothing"])
def test_what_cannot_be_read_is_left_out_of_the_average(job, kind, caplog):
    told, folder = job(change=damage("site-2", kind), min_clients=2)
    assert told.panics == []
    assert [r["sites"] for r in read_summary(folder)["rounds"]] == [SITES, SITES, ["site-1", "site-3"]]
    told.answers = [entry for entry in told.answers if entry[0] != "site-2"]
    last = load_adapter(folder / "last_adapter").arrays
    for name, values in weighted_mean(told, 2).items():
        np.testing.assert_allclose(last[name], values, rtol=1e-5, atol=1e-8)
    assert ("the train answer of site-2 is left out" in caplog.text) == (kind != "silent")


def test_with_fewer_answers_than_needed_the_job_fails_and_keeps_what_it_has(job):
    told, folder = job(change=damage("site-2", "nan"), min_clients=3)
    assert told.panics == [
        "round 2: 2 of 3 sites gave a usable train answer and 3 are needed; without: site-2 (their own logs say why)"
    ]
    assert [r["round"] for r in read_summary(folder)["rounds"]] == [0]
    assert load_adapter(folder / "last_adapter").result["round"] == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lora_rank": 4}, "the sites do not agree on the options: lora_rank is 2 at site-1 and 4 at site-2"),
        ({"seed": 7}, "the sites do not agree on the options: seed is 42 at site-1 and 7 at site-2"),
        ({"freeze_a": 1}, "the sites do not agree on the options: freeze_a is 0 at site-1 and 1 at site-2"),
    ],
)
def test_sites_that_were_told_different_things_do_not_start(job, options, sentence):
    told, folder = job(site_options={"site-2": options})
    [panic] = told.panics
    assert panic.startswith(sentence)
    assert not folder.exists()


def test_what_is_each_site_s_own_affair_may_differ(job):
    own = {"site-2": {"batch_size": 3, "gradient_accumulation": 2, "gradient_checkpointing": 1}}
    told, _ = job(rounds=1, site_options=own)
    assert told.panics == []


# ---- going on from an adapter ----


@pytest.mark.parametrize("options", [{}, {"freeze_a": 1}, {"tuning": "full"}])
def test_a_job_goes_on_where_another_ended(job, options):
    _, first = job("first", **options)
    told, second = job("second", rounds=1, init_adapter=first / "last_adapter", **options)
    assert told.panics == []
    begun, ended = read_summary(second)["rounds"][0], read_summary(first)["rounds"][-1]
    for key in ("accuracy", "dev_accuracy", "dev_loss", "site_accuracy"):
        assert begun[key] == ended[key]
    assert read_summary(second)["zero_shot_accuracy"] == read_summary(first)["zero_shot_accuracy"]
    assert [r["round"] for r in read_summary(second)["rounds"]] == [0, 1]
    _, _, task = told.tasks[1]
    last = load_adapter(first / "last_adapter").arrays
    for name, values in task.params.items():
        np.testing.assert_array_equal(values, last[name])
    assert set(last) - set(task.params) == {name for name in last if options.get("freeze_a") and ".lora_A." in name}


@pytest.mark.parametrize(
    ("made_with", "goes_on_with", "sentence"),
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
def test_an_adapter_that_does_not_fit_is_refused(job, folders, made_with, goes_on_with, sentence):
    made_with = {**made_with, **({"model_name": folders["llama"]} if "model_name" in made_with else {})}
    _, first = job("first", rounds=1, **made_with)
    told, second = job("second", rounds=1, init_adapter=first / "last_adapter", **goes_on_with)
    [panic] = told.panics
    assert panic.startswith(f"--init_adapter: {first / 'last_adapter'} ")
    with pytest.raises(UserError, match=sentence):
        raise UserError(panic)
    assert "\n" not in panic
    assert not second.exists()


def test_an_adapter_that_is_not_there_is_named(job, tmp_path):
    told, folder = job(init_adapter=tmp_path / "nowhere")
    assert told.panics == [
        f"--init_adapter: adapter folder {tmp_path / 'nowhere'} does not exist; a job leaves it as best_adapter"
    ]
    assert not folder.exists()


def test_frozen_parts_must_be_those_that_the_sites_have(job, tmp_path):
    _, first = job("first", rounds=1, freeze_a=1)
    same, _ = job("same", rounds=1, freeze_a=1, init_adapter=first / "last_adapter")
    assert same.panics == []
    artifact = load_adapter(first / "last_adapter")
    name = next(n for n in artifact.arrays if ".lora_A." in n)
    moved = replace(artifact, arrays={**artifact.arrays, name: artifact.arrays[name] + 1})
    save_adapter(moved, tmp_path / "moved")
    told, _ = job("other", rounds=1, freeze_a=1, init_adapter=tmp_path / "moved")
    [panic] = told.panics
    assert f"--freeze_a 1: {name} at site-1 is another than that of the job's start" in panic


def test_frozen_parts_must_be_the_same_at_all_sites(job):
    def other_a(site, task, _round, answer):
        if (site, task) == ("site-3", messages.SETUP):
            name = next(n for n in answer.params if ".lora_A." in n)
            answer.params[name] = answer.params[name] * np.float32(1.5)
        return answer

    told, _ = job(freeze_a=1, change=other_a)
    [panic] = told.panics
    assert panic.startswith("--freeze_a 1: ")
    assert " at site-3 is another than that of the job's start; every site needs the same seed" in panic
    told, _ = job(change=other_a)  # where A is trained, all start from the first site's
    assert told.panics == []


# ---- going on ----


FULL = {"tuning": "full", "soft_labels": "off"}


def no_answers_from(round_number):
    """The server is stopped in this round."""
    return lambda site, task, n, answer: None if n >= round_number else answer


@pytest.mark.parametrize(
    "options", [{}, {"soft_refresh": 1}, {"freeze_a": 1}, {"tuning": "full", "soft_labels": "off"}]
)
@pytest.mark.parametrize("stopped_in", [1, 2, 4])
def test_a_run_goes_on_as_if_it_had_not_been_stopped(job, tmp_path, options, stopped_in):
    _, whole = job("whole", rounds=4, **options)
    stopped, _ = job("stopped", rounds=4, change=no_answers_from(stopped_in), checkpoint=tmp_path / "kept", **options)
    assert len(stopped.panics) == 1
    told, folder = job("on", rounds=4, checkpoint=tmp_path / "kept", **options)
    assert told.panics == []
    rounds = [n for task, n, _ in told.tasks if task == lpfl_messages.TRAIN]
    assert rounds == list(range(stopped_in, 5))
    expected, found = read_summary(whole), read_summary(folder)
    for key in ("test_accuracy", "dev_accuracy", "best_round", "zero_shot_accuracy", "labelled", "soft_labelled"):
        assert found[key] == expected[key]
    for key in ("round", "accuracy", "dev_accuracy", "dev_loss", "train_loss", "soft_label_agreement", "site_loss"):
        assert [r[key] for r in found["rounds"]] == [r[key] for r in expected["rounds"]]
    for name in ("best_adapter", "last_adapter"):
        arrays, again = load_adapter(whole / name).arrays, load_adapter(folder / name).arrays
        assert arrays.keys() == again.keys()
        assert all(np.array_equal(arrays[key], again[key]) for key in arrays)
    assert {n for tag, _, n in told.scalars if tag == "dev_accuracy"} == {0, 1, 2, 3, 4}  # TensorBoard has all rounds


def test_a_site_without_its_soft_labels_says_so(job, tmp_path):
    job("stopped", rounds=4, change=no_answers_from(4), checkpoint=tmp_path / "kept")
    shutil.rmtree(tmp_path / "workspace" / "flaretune_runs")
    told, _ = job("on", rounds=4, checkpoint=tmp_path / "kept")
    assert "goes on after round 3, but this site has no soft labels of that run" in told.panics[0]
