"""A whole job of FedBPT with a learned verbalizer in this process: its steps, what it leaves, and how it resumes."""

import json

import numpy as np
import pytest

from flaretune.config.options import build
from flaretune.data.load import load_split
from flaretune.data.shares import Split, share_of_common_set
from flaretune.engine import codec
from flaretune.errors import UserError
from flaretune.methods.fedbpt.artifact import load_prompt
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.fedbpt.learned_model import open_learned_model
from flaretune.methods.registry import find_method, load_classifier
from flaretune.models.prompt_settings import PromptSettings
from flaretune.tasks.spec import load_task
from tests.engine.in_process import run_job
from tests.learnable import write_reviews
from tests.methods.verbalizer.test_job import TASK

CLIENTS = ["site-1", "site-2", "site-3"]
ROUNDS = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(write_reviews(tmp_path_factory.mktemp("learned_job"), n_train=90, n_test=30))


def run(model, data, folder, change=lambda _c, _t, _n, reply: reply, server=None, anew=False, **options):
    """Run a job in this process; returns what was said, and the folder of its results."""
    small = {"n_words": 8, "k_shot": 9, "dtype": "float32", "eval_clients": "all", "verbalizer": "learned"}
    search = {"n_prompt_tokens": 3, "intrinsic_dim": 6, "local_iter": 2, "local_popsize": 4}
    config = FedBPTConfig(model_name=str(model), dataset=data, **{**small, **search, **options})
    more = {"num_rounds": ROUNDS, **(server or {})}
    told = run_job(find_method("fedbpt"), dict.fromkeys(CLIENTS, config), folder, change=change, anew=anew, **more)
    return told, folder


@pytest.fixture(scope="module", params=["masked", "causal"])
def done(request, roberta, llama, data, tmp_path_factory):
    """A job on a model of each kind."""
    model = {"masked": roberta, "causal": llama}[request.param]
    return run(model, data, tmp_path_factory.mktemp("done"))


@pytest.fixture(scope="module")
def whole(roberta, data, tmp_path_factory):
    """A job that others are compared with."""
    return run(roberta, data, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def job(roberta, data, tmp_path):
    """Run a job on a masked model."""
    return lambda name="results", **more: run(roberta, data, tmp_path / name, **more)


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def last_arrays(told):
    """What the clients were sent to evaluate last."""
    return told.tasks[-1][2].arrays


def test_every_round_searches_and_then_makes_a_head(done):
    told, folder = done
    assert (told.failure, told.client_failures) == ("", {})
    search, head = [(codec.FIT, ""), (codec.FIT, "sums"), (codec.FIT, "losses")], [(codec.FIT, "words")]
    said = [(task, message.fields.get("step", "")) for task, _, message in told.tasks]
    assert said == [(codec.INITIALIZE, ""), *head, *search[1:], *search * ROUNDS, (codec.EVALUATE, "")]
    summary = read_summary(folder)
    rounds = summary["rounds"]
    assert summary["verbalizer_accuracy"] == rounds[0]["accuracy"]
    assert summary["example_forwards"] == sum(r["example_forwards"] for r in rounds)
    # 18 labelled texts for training and 18 for validation in all, behind one template and the prompt; 3 clients with
    # 3 texts that say nothing
    assert rounds[0]["example_forwards"] == 2 * (18 + 18) + 9
    # a search of 2 generations of 4 and their mean on 18 texts, then sums and losses behind the prompt alone
    assert [r["example_forwards"] for r in rounds[1:]] == [9 * 18 + 18 + 18] * ROUNDS
    assert [r["metrics"]["words"] for r in rounds] == [16] * (ROUNDS + 1)
    assert np.bincount(last_arrays(told)["head.words"][:, 0]).tolist() == [8, 8]


def test_a_saved_result_gives_the_job_s_numbers(done, data):
    _, folder = done
    summary = read_summary(folder)
    classifier = load_classifier(folder / summary["artifact"], dtype="float32")
    test = load_split(load_task("sst2"), "test", data)
    found = classifier.probabilities(test.texts)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.mean(found.argmax(axis=1) == test.labels) == pytest.approx(
        summary["rounds"][summary["best_round"]]["accuracy"]
    )
    zero_shot = classifier.zero_shot(test).argmax(axis=1)
    assert np.mean(zero_shot == test.labels) == pytest.approx(summary["zero_shot_accuracy"])


def test_the_head_is_the_ridge_regression_of_all_texts_behind_the_prompt(job, roberta, data):
    """The textbook's normal equations, on the texts of all clients in one place, shrunk towards the label words."""
    told, folder = job(server={"aggregation": "mean", "num_rounds": 1})
    *_, sums, _, _ = (message.arrays for _, _, message in told.tasks)
    saved = load_prompt(folder / "best_prompt.safetensors")
    head, spec = saved.learned.head, load_task("sst2")
    best = read_summary(folder)["best_round"]
    point = saved.point if best else np.zeros(6)
    split = Split(9, len(CLIENTS), True, 0.5, FedBPTConfig().seed)
    shares = [share_of_common_set(spec, data, split, i, None).train for i in range(len(CLIENTS))]
    labels = np.concatenate([share.labels for share in shares])
    texts = [text for share in shares for text in share.texts]
    model = open_learned_model(spec, str(roberta), build(PromptSettings, saved.options), "float32", "cpu")
    _, features = model.features(np.unique(head.words[:, 1]))
    found = features(point[None], model.texts(texts, labels), head.words)[0]
    scaled = (found - sums["center"]) / sums["scale"]
    centred, targets = scaled - scaled.mean(axis=0), np.eye(2)[labels]
    label_ids = told.replies[0][-1].fields["settings"]["verbalizer"]["label_ids"]
    of_class = [(head.words[:, 1] == token).astype(float) for [token] in label_ids]  # behind template and prompt
    toward = sums["scale"][:, None] * np.stack([of_class[0] - of_class[1], of_class[1] - of_class[0]], axis=1)
    toward *= 0.2 * 16 / (16 + len(labels)) / np.sqrt(np.mean(np.square(centred @ toward)))
    normal = centred.T @ centred + saved.result["shrinkage"] * np.eye(len(head.words))
    cross = centred.T @ (targets - targets.mean(axis=0))
    weights = np.linalg.solve(normal, cross + saved.result["shrinkage"] * toward)
    scores = targets.mean(axis=0) + centred @ weights
    np.testing.assert_allclose(head.logits(found) * head.temperature, scores, atol=1e-5)


def test_one_client_of_one_label_a_class_may_ask_behind_several_templates(roberta, data, tmp_path):
    task = tmp_path / "reviews.toml"
    task.write_text(TASK.replace('"auto"', '["bad", "great"]').replace('path = "data"', f'path = "{data}"'))
    config = FedBPTConfig(
        task_file=str(task), model_name=str(roberta), k_shot=1, n_words=8, dtype="float32", verbalizer="learned",
        n_prompt_tokens=3, intrinsic_dim=6, local_iter=1, local_popsize=2,
    )  # fmt: skip
    told = run_job(find_method("fedbpt"), {"site-1": config}, tmp_path / "results", num_rounds=1)
    assert (told.failure, told.client_failures) == ("", {})
    # behind two templates 3 texts that say nothing, 2 for training and 2 for validation; the latter behind the prompt
    assert read_summary(tmp_path / "results")["rounds"][0]["example_forwards"] == 2 * (3 + 2 + 2) + 2 + 2


@pytest.mark.slow
def test_a_client_started_anew_for_every_task_gives_the_same_result(job, whole):
    anew, folder = job(anew=True)
    assert (anew.failure, anew.client_failures) == ("", {})
    # whichever step it begins with, a process asks about 3 texts that say nothing and the 18 that it needs behind the
    # template, and a search, which evaluates the round before, about the 18 for validation too; the rest as ever
    again = [3 * 3 + 18 + 18, 3 * 3 + 18, 3 * 3 + 18]
    forwards = [r["example_forwards"] for r in read_summary(folder)["rounds"]]
    assert forwards[1:] == [9 * 18 + 18 + 18 + sum(again)] * ROUNDS
    for name, values in last_arrays(whole[0]).items():
        np.testing.assert_allclose(last_arrays(anew)[name], values, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("stopped_in", [1, 2])
def test_a_run_goes_on_as_if_it_had_not_been_stopped(job, whole, tmp_path, stopped_in):
    kept = {"checkpoint": str(tmp_path / "checkpoints")}
    stopped, _ = job("stopped", change=lambda c, t, n, reply: None if n >= stopped_in else reply, server=kept)
    assert stopped.failure
    told, folder = job("on", server=kept)
    assert told.failure == ""
    for name, values in last_arrays(whole[0]).items():
        np.testing.assert_allclose(last_arrays(told)[name], values, atol=1e-6)
    expected, found = read_summary(whole[1]), read_summary(folder)
    assert [r["accuracy"] for r in found["rounds"]] == [r["accuracy"] for r in expected["rounds"]]


def test_words_are_found_where_the_task_names_none(job, tmp_path):
    file = tmp_path / "reviews.toml"
    file.write_text(TASK, encoding="utf-8")
    told, folder = job(task_file=str(file))
    assert (told.failure, told.client_failures) == ("", {})
    assert read_summary(folder)["zero_shot_accuracy"] is None
    assert np.bincount(last_arrays(told)["head.words"][:, 0]).tolist() == [8, 8, 8]  # two templates, and the prompt


def test_sums_that_cannot_be_are_left_out(job, caplog):
    def damage(client, task, round_number, reply):
        if client == "site-2" and "gram" in reply.arrays and round_number == 1:
            reply.arrays["gram"] = -reply.arrays["gram"]
        return reply

    told, folder = job(change=damage, server={"min_clients": 2})
    assert told.failure == ""
    assert read_summary(folder)["rounds"][1]["clients"] == ["site-1", "site-3"]
    assert "the fit reply of site-2 is not used" in caplog.text


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"calibrate": "batch"}, "--calibrate"),
        ({"perturb": 1}, "--perturb"),
        ({"dp_noise": 1.0}, "--dp_noise"),
        ({"model_server": "http://127.0.0.1:8765"}, "--model_server"),
    ],
)
def test_options_that_do_not_go_with_it_are_a_sentence(options, flag):
    with pytest.raises(UserError, match=f"{flag} does not go with --verbalizer learned"):
        FedBPTConfig(verbalizer="learned", **options)
