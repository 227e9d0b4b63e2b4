"""Jobs with --dp_noise: what is sent, what it costs, and what the server makes of it."""

import copy
import json
import logging
from functools import partial

import numpy as np
import pytest
from flaretune.flare.fedbpt_client import FedBPTTasks
from flaretune.flare.fedbpt_controller import FedBPTController
from flaretune.flare.lpfl_client import LPFLTasks
from flaretune.flare.lpfl_controller import LPFLController

from flaretune.errors import UserError
from flaretune.flare import fedbpt_messages, lpfl_messages, messages, site_script
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.fedbpt.distribution import Distribution
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.privacy.accountant import epsilon
from flaretune.privacy.release import FILE, Releases
from tests.flare.federation import federate
from tests.flare.sending import serialised, through_nvflare
from tests.flare.sites_with_secrets import fields_of
from tests.learnable import write_reviews
from tests.models_for_tests import save_tiny_model
from tests.privacy.table import rows
from tests.privacy.test_release import NoNoise

METHODS = ["FedBPT", "LP-FL"]
DIM, CLIP = 6, 0.5
SMALL = {
    "FedBPT": {"n_prompt_tokens": 3, "intrinsic_dim": DIM, "local_iter": 2},
    "LP-FL": {"lora_rank": 2, "local_epochs": 1, "local_steps": 2, "unlabelled": 12, "learning_rate": 0.1},
}
SITES = ["north", "south"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private")
    data = {n: write_reviews(folder / f"data{n}", n_train=n, n_test=20) for n in (60, 200)}
    return {"model": str(save_tiny_model("roberta", folder / "roberta")), "data": data}


@pytest.fixture
def site(folders, tmp_path, monkeypatch, as_in_a_job):
    """Makes what answers the tasks of a site with its own file of n texts, or with a share of the data of 60."""
    (tmp_path / "workspace" / "job" / "app").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "workspace" / "job" / "app")

    def make(method, n=60, own=True, **options):
        config, tasks = {"FedBPT": (FedBPTConfig, FedBPTTasks), "LP-FL": (LPFLConfig, LPFLTasks)}[method]
        data = folders["data"][n]
        place = {"data_path": str(data / "train.csv")} if own else {"dataset": str(data)}
        common = {"model_name": folders["model"], "k_shot": 8, "dtype": "float32", "eval_clients": "all"}
        noise = {"dp_noise": 2.0, "dp_clip": CLIP}
        return tasks(config(**{**common, **place, **SMALL[method], **noise, **options}))

    return make


def a_round(method, setup):
    """A round's task, and the arrays that it starts from; `setup` is the site's answer to the first task."""
    if method == "FedBPT":
        start = Distribution(np.linspace(-1, 1, DIM).astype(np.float32).astype(np.float64), 0.5)
        return fedbpt_messages.search_task(["north"], start, "identity", 2, True), {"mean": start.mean}
    arrays = {name: values for name, values in setup.params.items() if ".lora_" in name}
    return lpfl_messages.train_task(["north"], arrays, 2, True), arrays


def answers(method, tasks):
    """Of a site to the four tasks of a job, and what the round started from."""
    ask = tasks.handlers()
    setup = ask[messages.SETUP](through_nvflare(messages.setup_task(["north"])), "north", ["north"])
    task, start = a_round(method, setup)
    kind = fedbpt_messages.SEARCH if method == "FedBPT" else lpfl_messages.TRAIN
    found = ask[kind](through_nvflare(task), "north", ["north"])
    if method == "FedBPT":
        last = fedbpt_messages.evaluate_task(["north"], np.ones(DIM))
    else:
        last = lpfl_messages.evaluate_task(["north"], start)
    done = ask[messages.EVALUATE](through_nvflare(last), "north", ["north"])
    return {"setup": setup, kind: found, "evaluation": done}, start


def noised_arrays(method, message):
    return {n: v for n, v in message.params.items() if n == "mean" or ".lora_" in n}


@pytest.mark.parametrize("method", METHODS)
def test_all_but_the_noised_arrays_is_the_same_whatever_the_data(method, site, monkeypatch):
    """Other texts, more of them, other labels: what is not noised does not change by a bit."""
    monkeypatch.setattr(site_script, "Releases", partial(Releases, draw=NoNoise))
    (first, _), (second, _) = (answers(method, site(method, n, seed=42)) for n in (60, 200))
    noised = [r.field for r in rows() if r.with_noise == "noised"]
    assert noised == ["mean", "lora"]
    for kind, message in first.items():
        other = copy.deepcopy(second[kind])
        message = copy.deepcopy(message)
        if kind in ("search", "train"):
            arrays = noised_arrays(method, message)
            assert any(not np.array_equal(arrays[n], other.params[n]) for n in arrays)  # the data makes a difference
            for name in arrays:
                del message.params[name], other.params[name]
            message.meta["flaretune"]["releases"] = other.meta["flaretune"]["releases"]  # of one count, in one folder
        told, others = (m.meta["flaretune"].pop("releases", None) for m in (message, other))
        assert (told is None) == (kind == "setup") or told <= others
        assert serialised(message) == serialised(other)
        assert not {"test", "zero_shot", "soft_labels_right"} & set(fields_of(message))


@pytest.mark.parametrize("method", METHODS)
def test_what_is_sent_is_the_clipped_change_with_noise(method, site, monkeypatch):
    noise = NoNoise()
    with monkeypatch.context() as patched:
        patched.setattr(site_script, "Releases", partial(Releases, draw=lambda: noise))
        found, start = answers(method, site(method))
    clipped = noised_arrays(method, found["search" if method == "FedBPT" else "train"])
    changes = np.concatenate([(clipped[n].astype(np.float64) - start[n]).ravel() for n in start])
    assert np.linalg.norm(changes) == pytest.approx(CLIP, rel=1e-4)  # a round goes further than that
    assert set(noise.deviations) == {2.0 * 2 * CLIP}
    plain, _ = answers(method, site(method, dp_noise=0.0))
    arrays = noised_arrays(method, plain["search" if method == "FedBPT" else "train"])
    found_changes = np.concatenate([(arrays[n].astype(np.float64) - start[n]).ravel() for n in start])
    length = np.linalg.norm(found_changes)
    assert length > CLIP
    np.testing.assert_allclose(changes, found_changes * CLIP / length, rtol=2e-3, atol=1e-5)
    sent, _ = answers(method, site(method, dp_noise=2000.0))
    arrays = noised_arrays(method, sent["search" if method == "FedBPT" else "train"])
    values = np.concatenate([(arrays[n].astype(np.float64) - start[n]).ravel() for n in start])
    # of six numbers of noise the largest is below a tenth of a deviation once in millions of runs
    assert 0.1 < np.abs(values).max() / (2000.0 * 2 * CLIP) < 7.0


@pytest.mark.parametrize("method", METHODS)
def test_public_test_data_is_counted_and_a_site_s_own_is_not(method, site):
    found, _ = answers(method, site(method, own=False, dp_public_test=1))
    for message in found.values():
        assert message.params["test"][1] == 20
        assert message.params["dev"].tolist() == [0, 0]
    with pytest.raises(UserError, match="--dp_public_test 1 with --data_path"):
        site(method, dp_public_test=1)


@pytest.mark.parametrize("method", METHODS)
def test_a_new_process_goes_on_with_the_count(method, site, tmp_path):
    for releases in (1, 2):
        found, _ = answers(method, site(method))
        assert found["evaluation"].meta["flaretune"]["releases"] == releases
    [file] = tmp_path.rglob(FILE)
    assert json.loads(file.read_text(encoding="utf-8"))["releases"] == 2


def test_a_site_refuses_what_it_does_not_allow(site):
    """NVFlare says how many rounds a job has: ten, in these tests."""
    limit = epsilon(2.0, 1e-5, 10)
    answers("FedBPT", site("FedBPT", dp_epsilon=limit + 0.01))
    with pytest.raises(UserError, match=r"--dp_epsilon .*: after 11 answers with --dp_noise 2 ε is"):
        answers("FedBPT", site("FedBPT", dp_epsilon=limit + 0.01))  # which has answered once
    with pytest.raises(UserError, match="this site sends nothing without noise"):
        site("FedBPT", dp_noise=0.0, dp_epsilon=1.0)


@pytest.mark.parametrize("method", METHODS)
def test_the_server_tells_what_a_run_has_cost(method, site, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="flaretune.server")
    controller = {"FedBPT": FedBPTController, "LP-FL": LPFLController}[method](num_rounds=3)
    told = federate(controller, {name: site(method) for name in SITES}, tmp_path / "results", monkeypatch)
    assert told.panics == []
    summary, config = (
        json.loads((tmp_path / "results" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("summary", "config")
    )
    expected = pytest.approx(epsilon(2.0, 1e-5, 3), abs=1e-3)
    assert (summary["privacy"]["epsilon"], summary["privacy"]["releases"]) == (expected, 3)
    assert (config["privacy"]["epsilon"], config["privacy"]["delta"]) == (expected, 1e-5)
    assert [r["releases"] for r in summary["rounds"]] == [0, 1, 2, 3]
    assert [r["epsilon"] for r in summary["rounds"]] == [
        pytest.approx(epsilon(2.0, 1e-5, n), abs=1e-3) for n in range(4)
    ]
    assert summary["best_round"] == 3  # the last: there is nothing to choose by
    assert summary["dev_accuracy"] is summary["test_accuracy"] is None
    assert "3 noised answers" in caplog.messages[-1]
    assert f"ε = {epsilon(2.0, 1e-5, 3):.4g}, δ = 1e-05" in caplog.messages[-1]
    if method == "LP-FL":
        sent = [m for _, task, n, m in told.answers if (task, n) == (lpfl_messages.TRAIN, 1)]
        [task] = [m for kind, n, m in told.tasks if (kind, n) == (lpfl_messages.TRAIN, 2)]
        for name in noised_arrays(method, sent[0]):
            mean = np.mean([m.params[name].astype(np.float64) for m in sent], axis=0)  # whoever has more texts
            np.testing.assert_allclose(task.params[name], mean, rtol=1e-4, atol=1e-5)


def test_a_run_without_noise_says_nothing_of_it(site, tmp_path, monkeypatch):
    told = federate(
        FedBPTController(num_rounds=1), {"north": site("FedBPT", dp_noise=0.0)}, tmp_path / "results", monkeypatch
    )
    summary = json.loads((tmp_path / "results" / "summary.json").read_text(encoding="utf-8"))
    assert "privacy" not in summary
    assert not list(tmp_path.rglob(FILE))
    assert all("releases" not in m.meta["flaretune"] for _, _, _, m in told.answers)
