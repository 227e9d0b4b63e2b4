"""A whole job of the learned verbalizer in this process: one pass, what it leaves, how it resumes, and who lies."""

import json

import numpy as np
import pytest

from flaretune.data.load import load_split
from flaretune.engine import codec
from flaretune.errors import UserError
from flaretune.methods.registry import find_method, load_classifier
from flaretune.methods.verbalizer.config import VerbalizerConfig
from flaretune.privacy.accountant import DELTA, epsilon
from flaretune.tasks.spec import load_task
from tests.engine.in_process import run_job
from tests.learnable import write_reviews

CLIENTS = ["site-1", "site-2", "site-3"]
TASK = """
text_columns = ["sentence"]
label_column = "label"
label_values = [0, 1]
metric = "accuracy"

[masked]
template = "{sentence} . It was {mask} ."
label_words = "auto"
templates = ["{sentence} . All in all {mask}"]

[source]
path = "data"
train = "train"
test = "validation"
"""


@pytest.fixture(scope="module")
def folders(roberta, tmp_path_factory):
    data = write_reviews(tmp_path_factory.mktemp("verbalizer_job"), n_train=90, n_test=30)
    return {"model_name": str(roberta), "dataset": str(data)}


def run(folders, folder, change=lambda _client, _task, _round, reply: reply, server=None, anew=False, **options):
    """Run a job in this process; returns what was said, and the folder of its results."""
    small = {"n_words": 8, "k_shot": 9, "dtype": "float32", "eval_clients": "all"}
    configs = dict.fromkeys(CLIENTS, VerbalizerConfig(**{**folders, **small, **options}))
    told = run_job(find_method("verbalizer"), configs, folder, change=change, anew=anew, **(server or {}))
    return told, folder


@pytest.fixture
def job(folders, tmp_path):
    return lambda name="results", change=lambda _c, _t, _n, reply: reply, **more: run(
        folders, tmp_path / name, change, **more
    )


@pytest.fixture(scope="module")
def whole(folders, tmp_path_factory):
    """A job that others are compared with."""
    return run(folders, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def auto_task(tmp_path, folders):
    """A task that names no words, and asks with two templates."""
    file = tmp_path / "reviews.toml"
    file.write_text(TASK, encoding="utf-8")
    return str(file)


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def last_head(told):
    """What the clients were sent to evaluate last."""
    return told.tasks[-1][2].arrays


def test_a_job_asks_once_in_a_round_of_three_steps(whole):
    told, folder = whole
    assert told.failure == ""
    assert [(task, n, m.fields.get("step")) for task, n, m in told.tasks] == [
        (codec.INITIALIZE, 0, None),
        (codec.FIT, 1, "words"),
        (codec.FIT, 1, "sums"),
        (codec.FIT, 1, "losses"),
        (codec.EVALUATE, 1, None),
    ]
    summary = read_summary(folder)
    assert (summary["method"], summary["artifact_kind"]) == ("Verbalizer", "verbalizer")
    # 9 labels a class, 2 classes, for training and for validation; 3 clients that ask behind 3 neutral texts
    assert [r["example_forwards"] for r in summary["rounds"]] == [0, 2 * 9 * 2 + 3 * 3]
    assert summary["queries"] == 0  # which are search points, or training steps
    assert [r["metrics"].get("words") for r in summary["rounds"]] == [None, 8]
    assert len(last_head(told)["words"]) == 8


@pytest.mark.slow
@pytest.mark.parametrize("n_classes", [77, 150])
def test_many_classes_are_learned_from_three_texts_each(roberta, tmp_path, n_classes):
    """The first number is that of banking77."""
    labels = [f"intent_{number}" for number in range(n_classes)]
    rows = [f"text {n} about {label.replace('_', ' ')},{label}" for n in range(8) for label in labels]
    (tmp_path / "intents.csv").write_text("\n".join(["sentence,label", *rows]) + "\n", encoding="utf-8")
    task = TASK.replace("[0, 1]", json.dumps(labels)).replace('"data"', '"intents.csv"')
    (tmp_path / "intents.toml").write_text(task, encoding="utf-8")
    small = {"k_shot": 3, "dtype": "float32", "eval_clients": "all", "model_name": str(roberta)}
    config = VerbalizerConfig(task_file=str(tmp_path / "intents.toml"), **small)
    told = run_job(find_method("verbalizer"), dict.fromkeys(CLIENTS[:2], config), tmp_path / "results")
    assert (told.failure, told.client_failures) == ("", {})
    texts = [{"sentence": row.partition(",")[0]} for row in rows]
    classifier = load_classifier(tmp_path / "results" / "best_verbalizer.safetensors", dtype="float32")
    found = classifier.probabilities(texts).argmax(axis=1)
    assert np.mean(found == np.tile(np.arange(n_classes), 8)) > 10 / n_classes  # chance: 1 / n_classes


def test_label_words_are_always_among_the_words(job, folders):
    told, _ = job(n_words=2)
    settings = next(m for _, task, _, m in told.replies if task == codec.INITIALIZE).fields["settings"]
    labels = {token for of_class in settings["verbalizer"]["label_ids"] for token in of_class}
    assert set(last_head(told)["words"][:, 1].tolist()) == labels


@pytest.mark.parametrize("split", [{"iid": 1}, {"iid": 0, "alpha_dir": 0.5}])
def test_a_saved_result_gives_the_job_s_numbers(job, split, folders):
    told, folder = job(**split)
    assert told.failure == "", told.client_failures
    classifier = load_classifier(folder / "best_verbalizer.safetensors", dtype="float32")
    spec = load_task("sst2")
    test = load_split(spec, "test", folders["dataset"])
    found = classifier.probabilities(test.texts)
    summary = read_summary(folder)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.mean(found.argmax(axis=1) == test.labels) == pytest.approx(
        summary["rounds"][summary["best_round"]]["accuracy"]
    )


def test_words_are_found_where_the_task_names_none_and_several_templates_are_asked(job, auto_task, folders):
    told, folder = job(task_file=auto_task)
    assert (told.failure, told.client_failures) == ("", {})
    summary = read_summary(folder)
    assert summary["zero_shot_accuracy"] is None  # there is no such thing without words
    start, learned = summary["rounds"]  # nor what the same class for every text would have
    assert [start[n] for n in ("accuracy", "validation_accuracy", "validation_loss", "client_accuracy")] == [
        None
    ] * 3 + [{}]
    assert learned["accuracy"] is not None
    assert learned["validation_accuracy"] is not None
    # two templates; validation texts are asked about when a head is there to be judged
    assert [r["example_forwards"] for r in summary["rounds"]] == [0, 2 * (2 * 9 + 3 * 3) + 2 * 2 * 9]
    words = last_head(told)["words"]
    assert np.bincount(words[:, 0]).tolist() == [8, 8]
    classifier = load_classifier(folder / summary["artifact"], dtype="float32")
    assert classifier.probabilities([{"sentence": "a lovely film"}]).shape == (1, 2)
    with pytest.raises(UserError, match="there is no zero-shot to measure"):
        classifier.zero_shot(load_split(load_task("sst2"), "test", folders["dataset"]))


def test_a_client_started_anew_for_every_task_gives_the_same_result(job, whole):
    once, _ = whole
    anew, folder = job("anew", anew=True)
    assert anew.failure == ""
    np.testing.assert_allclose(last_head(anew)["weights"], last_head(once)["weights"], atol=1e-7)
    assert read_summary(folder)["example_forwards"] > 45  # passes that were made again are counted


@pytest.mark.parametrize(("stopped_in", "steps"), [("squares", 3), ("losses", 3), ("evaluate", 0)])
def test_a_run_goes_on_as_if_it_had_not_been_stopped(job, whole, tmp_path, stopped_in, steps):
    def stop(client, task, round_number, reply):
        return None if stopped_in in (task, *reply.arrays) else reply

    kept = {"checkpoint": str(tmp_path / "checkpoints")}
    whole, expected = whole
    stopped, _ = job("stopped", stop, server=kept)
    assert stopped.failure
    told, folder = job("on", server=kept)
    assert told.failure == ""
    assert len([task for task, _, _ in told.tasks if task == codec.FIT]) == steps
    for name, values in last_head(whole).items():
        np.testing.assert_allclose(last_head(told)[name], values, atol=1e-9)
    expected, found = read_summary(expected), read_summary(folder)
    assert [r["accuracy"] for r in found["rounds"]] == [r["accuracy"] for r in expected["rounds"]]
    assert found["best_round"] == expected["best_round"]


def lying(client, task, round_number, reply):
    """One client claims features three times as long as they are."""
    if client == "site-2" and "cross" in reply.arrays:
        reply.arrays |= {"cross": reply.arrays["cross"] * 3, "gram": reply.arrays["gram"] * 9}
    return reply


def test_a_client_whose_sums_are_far_beyond_the_others_is_held_to_them(job):

    for rule, limited in (("clipped", True), ("mean", False)):
        told, folder = job(rule, lying, server={"aggregation": rule})
        assert told.failure == ""
        assert (read_summary(folder)["rounds"][1].get("clipped", []) == ["site-2"]) == limited


WRONG = {
    "not finite": ("gram", lambda values: values * np.nan),
    "another size": ("gram", lambda values: values[:-1]),
    "impossible": ("gram", lambda values: -values),
    "too many texts": ("counts", lambda values: values + 100),
}


@pytest.mark.parametrize(("name", "change"), WRONG.values(), ids=WRONG)
def test_sums_that_cannot_be_are_left_out(job, name, change, caplog):
    def damage(client, task, round_number, reply):
        if client == "site-2" and "cross" in reply.arrays:
            reply.arrays[name] = change(reply.arrays[name])
        return reply

    told, folder = job(change=damage, server={"min_clients": 2})
    assert told.failure == ""
    assert read_summary(folder)["rounds"][1]["clients"] == ["site-1", "site-3"]
    assert "the fit reply of site-2 is not used" in caplog.text


def test_with_noise_one_release_is_sent_and_nothing_else_of_the_texts(job):
    told, folder = job(dp_noise=4.0, dp_clip=1.0)
    assert told.failure == ""
    for client in CLIENTS:
        words, sums, losses = (m for c, task, _, m in told.replies if (c, task) == (client, codec.FIT))
        assert [step.fields.get("releases", 0) for step in (words, sums, losses)] == [0, 1, 1]
        assert not any(np.any(values) for values in words.arrays.values())
        assert not np.any(losses.arrays["losses"])
        assert not np.any(sums.arrays["counts"])
    assert np.all(np.isfinite(last_head(told)["weights"]))
    assert read_summary(folder)["privacy"]["epsilon"] > 0


@pytest.mark.parametrize(("allowed", "runs"), [(1.01, True), (0.99, False)])
def test_a_client_that_allows_one_release_takes_part(job, allowed, runs):
    limit = allowed * epsilon(4.0, DELTA, 1)
    told, _ = job(dp_noise=4.0, dp_epsilon=limit)
    assert (told.failure == "") is runs
    assert sorted(told.client_failures) == ([] if runs else CLIENTS)
    assert all("--dp_epsilon" in sentence for sentence in told.client_failures.values())
