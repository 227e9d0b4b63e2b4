"""Jobs with --dp_noise: what is sent, what it costs, and what the server makes of it."""

import copy
import json
import logging
from functools import partial

import numpy as np
import pytest

from flaretune.engine import codec, worker
from flaretune.engine.worker import Worker
from flaretune.errors import UserError
from flaretune.methods.exchanged import FitRequest
from flaretune.methods.fedbpt.distribution import Distribution, pack
from flaretune.methods.registry import find_method
from flaretune.privacy.accountant import epsilon
from flaretune.privacy.release import FILE, Releases
from tests.engine.in_process import run_job
from tests.engine.small_jobs import DIM, METHODS, learned, small_config
from tests.jobs_for_tests import read_summary
from tests.learnable import write_reviews
from tests.privacy.clients_with_secrets import as_bytes, fields_of
from tests.privacy.table import rows
from tests.privacy.test_release import NoNoise

CLIP = 0.5
COMMON = codec.task(["north"], "", 0, None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private")
    return {n: write_reviews(folder / f"data{n}", n_train=n, n_test=20) for n in (60, 200)}


@pytest.fixture
def config(data, roberta):
    """Options of a client with its own file of n texts, or with a share of the data of n."""

    def make(method, n=60, own=True, **options):
        place = {"data_path": str(data[n] / "train.csv")} if own else {"dataset": str(data[n])}
        faster = {"learning_rate": 0.1} if method == "lpfl" else {}
        noise = {"dp_noise": 2.0, "dp_clip": CLIP}
        return small_config(method, roberta, **{**place, **faster, **noise, **options})

    return make


@pytest.fixture
def replies(config, tmp_path):
    """A client's replies to the three tasks of a job of ten rounds, by task, and what its round started from."""

    def handle(method, n=60, **options):
        client = Worker(
            find_method(method), config(method, n, **options), "north", tmp_path / "states", tmp_path / "runs"
        )
        first = client(codec.INITIALIZE, codec.initialize_message(COMMON, 10))
        if method == "fedbpt":
            mean = np.linspace(-1, 1, DIM).astype(np.float32)
            arrays, start = pack(Distribution(mean.astype(np.float64), 0.5), "identity"), {"mean": mean}
            last = {"mean": np.ones(DIM)}
        else:
            arrays = start = last = learned(first)
        fit = client(codec.FIT, codec.fit_message(COMMON, FitRequest(2, arrays, {}, evaluate=True)))
        evaluated = client(codec.EVALUATE, codec.evaluate_message(COMMON, 3, last))
        return {codec.INITIALIZE: first, codec.FIT: fit, codec.EVALUATE: evaluated}, start

    return handle


def change(sent, start) -> np.ndarray:
    """What a client has changed in a round, all numbers in one vector."""
    return np.concatenate([(learned(sent)[n].astype(np.float64) - start[n]).ravel() for n in start])


@pytest.mark.parametrize("method", METHODS)
def test_all_but_the_noised_arrays_is_the_same_whatever_the_data(method, replies, monkeypatch):
    """Other texts, more of them, other labels: what is not noised does not change by a bit."""
    monkeypatch.setattr(worker, "Releases", partial(Releases, draw=NoNoise))
    (first, _), (second, _) = (replies(method, n, seed=42) for n in (60, 200))
    assert sorted(r.field for r in rows() if r.with_noise == "noised") == ["cross", "gram", "lora", "mean", "theta"]
    for task in codec.TASKS:
        message, other = copy.deepcopy(first[task]), copy.deepcopy(second[task])
        if task == codec.FIT:
            noised = learned(message)
            assert any(not np.array_equal(noised[n], other.arrays[n]) for n in noised)  # the data makes a difference
            for name in noised:
                del message.arrays[name], other.arrays[name]
        told, others = (m.fields.pop("releases", None) for m in (message, other))  # one count, of one folder
        # the second job's first reply tells of the round of the first
        assert (told, others) == ((None, 1) if task == codec.INITIALIZE else (1, 2))
        assert as_bytes(message) == as_bytes(other)
        assert not {"test", "zero_shot", "numbers.soft_labels_correct"} & set(fields_of(message))


@pytest.mark.parametrize("method", METHODS)
def test_what_is_sent_is_the_clipped_change_with_noise(method, replies, monkeypatch):
    noise = NoNoise()
    with monkeypatch.context() as patched:
        patched.setattr(worker, "Releases", partial(Releases, draw=lambda: noise))
        found, start = replies(method)
    clipped = change(found[codec.FIT], start)
    assert np.linalg.norm(clipped) == pytest.approx(CLIP, rel=1e-4)  # a round goes further than that
    assert set(noise.deviations) == {2.0 * 2 * CLIP}
    plain, _ = replies(method, dp_noise=0.0)
    whole = change(plain[codec.FIT], start)
    length = np.linalg.norm(whole)
    assert length > CLIP
    np.testing.assert_allclose(clipped, whole * CLIP / length, rtol=2e-3, atol=1e-5)
    noised, _ = replies(method, dp_noise=2000.0)
    # of six numbers of noise the largest is below a tenth of a deviation once in millions of runs
    assert 0.1 < np.abs(change(noised[codec.FIT], start)).max() / (2000.0 * 2 * CLIP) < 7.0


@pytest.mark.parametrize("method", METHODS)
def test_public_test_data_is_counted_and_a_client_s_own_is_not(method, replies, config):
    found, _ = replies(method, own=False, dp_public_test=1)
    for message in found.values():
        assert message.arrays["test"][1] == 20
        assert message.arrays["validation"].tolist() == [0, 0]
    with pytest.raises(UserError, match="--dp_public_test 1 with --data_path"):
        config(method, dp_public_test=1)


@pytest.mark.parametrize("method", METHODS)
def test_a_new_process_resumes_the_count(method, replies, tmp_path):
    for releases in (1, 2):
        found, _ = replies(method)
        assert found[codec.EVALUATE].fields["releases"] == releases
    [file] = tmp_path.rglob(FILE)
    assert json.loads(file.read_text(encoding="utf-8"))["releases"] == 2


def test_a_client_refuses_what_it_does_not_allow(replies, config):
    limit = epsilon(2.0, 1e-5, 10)
    replies("fedbpt", dp_epsilon=limit + 0.01)
    with pytest.raises(UserError, match=r"--dp_epsilon .*: after 11 results"):
        replies("fedbpt", dp_epsilon=limit + 0.01)  # which has sent one
    with pytest.raises(UserError, match="--dp_epsilon 1:"):
        config("fedbpt", dp_noise=0.0, dp_epsilon=1.0)


@pytest.mark.parametrize("method", METHODS)
def test_the_server_tells_what_a_run_has_cost(method, config, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="flaretune.server")
    results = tmp_path / "results"
    told = run_job(find_method(method), {c: config(method) for c in ("north", "south")}, results, num_rounds=3)
    assert (told.failure, told.client_failures) == ("", {})
    summary = read_summary(results)
    agreed = json.loads((results / "config.json").read_text(encoding="utf-8"))["privacy"]
    expected = pytest.approx(epsilon(2.0, 1e-5, 3), abs=1e-3)
    assert (summary["privacy"]["epsilon"], summary["privacy"]["releases"]) == (expected, 3)
    assert (agreed["epsilon"], agreed["delta"]) == (expected, 1e-5)
    assert [r["releases"] for r in summary["rounds"]] == [0, 1, 2, 3]
    assert [r["epsilon"] for r in summary["rounds"]] == [
        pytest.approx(epsilon(2.0, 1e-5, n), abs=1e-3) for n in range(4)
    ]
    assert summary["best_round"] == 3  # the last: there is nothing to choose by
    assert summary["validation_accuracy"] is summary["test_accuracy"] is None
    assert "3 noised results" in caplog.messages[-1]
    assert f"ε = {epsilon(2.0, 1e-5, 3):.4g}, δ = 1e-05" in caplog.messages[-1]
    if method == "lpfl":
        sent = [m for _, task, n, m in told.replies if (task, n) == (codec.FIT, 1)]
        [next_round] = [m for task, n, m in told.tasks if (task, n) == (codec.FIT, 2)]
        for name in learned(sent[0]):
            mean = np.mean([m.arrays[name].astype(np.float64) for m in sent], axis=0)  # whoever has more texts
            np.testing.assert_allclose(next_round.arrays[name], mean, rtol=1e-4, atol=1e-5)


def test_what_a_client_has_sent_is_spent_after_it_has_gone(config, tmp_path):
    """The other is one that was ready later, so that it has sent less."""

    def change(client, task, round_number, reply):
        if client == "south" and task == codec.FIT:
            reply.fields["releases"] = max(1, round_number - 1)
        return None if client == "north" and round_number > 2 else reply

    clients = {c: config("fedbpt") for c in ("north", "south")}
    told = run_job(find_method("fedbpt"), clients, tmp_path / "results", change=change, num_rounds=4)
    assert told.failure == ""
    rounds = read_summary(tmp_path / "results")["rounds"]
    assert [r["releases"] for r in rounds[:4]] == [0, 1, 2, 2]
    assert rounds[3]["epsilon"] == pytest.approx(epsilon(2.0, 1e-5, 2), abs=1e-3)


def test_a_resumed_run_costs_what_all_its_rounds_cost_though_a_client_has_lost_its_count(config, tmp_path):
    method, server = find_method("fedbpt"), {"checkpoint": str(tmp_path / "checkpoints")}
    for rounds in (2, 4):  # each job in a folder of its own, where nothing of the other is found
        run_job(method, {"north": config("fedbpt")}, tmp_path / str(rounds), num_rounds=rounds, **server)
    summary = read_summary(tmp_path / "4")
    assert [r["releases"] for r in summary["rounds"]] == [0, 1, 2, 3, 4]
    assert summary["privacy"]["epsilon"] == pytest.approx(epsilon(2.0, 1e-5, 4), abs=1e-4)
    allowed = config("fedbpt", dp_epsilon=epsilon(2.0, 1e-5, 5))
    told = run_job(method, {"north": allowed}, tmp_path / "6", num_rounds=6, **server)
    assert "--dp_epsilon" in told.client_failures["north"]


def test_a_run_without_noise_says_nothing_of_it(config, tmp_path):
    told = run_job(find_method("fedbpt"), {"north": config("fedbpt", dp_noise=0.0)}, tmp_path / "results", num_rounds=1)
    assert "privacy" not in read_summary(tmp_path / "results")
    assert not list(tmp_path.rglob(FILE))
    assert len(told.replies) == 3
    assert all("releases" not in m.fields for _, _, _, m in told.replies)
