"""Jobs whose first soft labels are a learned verbalizer's: their steps, those labels, and how they resume."""

import numpy as np
import pytest

from flaretune.config.options import build
from flaretune.data.shares import Split, share_of_common_set
from flaretune.engine import codec
from flaretune.errors import UserError
from flaretune.methods.lpfl.artifact import load_adapter
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.methods.verbalizer.head import sent_head
from flaretune.models.load import load_pretrained
from flaretune.models.word_log_probs import WordLogProbs
from flaretune.tasks.spec import load_task
from tests.jobs_for_tests import read_summary


@pytest.fixture
def job(lpfl_job):
    return lambda name="results", **more: lpfl_job(name, **{"soft_labels": "verbalizer", **more})


def said(told):
    """(step, round) of every task of a round, and of nothing else ("evaluate")."""
    return [(m.fields.get("step", ""), n) for task, n, m in told.tasks if task == codec.FIT]


@pytest.mark.parametrize("family", ["roberta", "llama"])
def test_the_first_round_makes_a_verbalizer_and_trains_on_what_it_says(job, folders, family):
    told, folder = job(model_name=folders[family])
    assert (told.failure, told.client_failures) == ("", {})
    assert said(told) == [("words", 1), ("sums", 1), ("losses", 1), ("", 1), ("", 2)]
    rounds = read_summary(folder)["rounds"]
    assert [r["metrics"].get("soft_labelled", 0) for r in rounds] == [0, 9, 18]  # a quarter of 12 at each client
    training = {n: m for task, n, m in told.tasks if task == codec.FIT and m.fields.get("step", "") == ""}
    assert any(name.startswith("head.") for name in training[1].arrays)
    assert set(training[2].arrays) == set(load_adapter(folder / "last_adapter").arrays)


def test_its_soft_labels_are_what_the_verbalizer_says_of_the_unlabelled_texts(job, folders):
    told, folder = job(rounds=1, soft_portion=1.0, seed=7)
    training = next(m for task, _, m in told.tasks if task == codec.FIT and not m.fields.get("step", ""))
    head, spec = sent_head(training.arrays), load_task("sst2")
    split = Split(9, 3, True, 0.5, 7, unlabelled=36)
    pools = [share_of_common_set(spec, folders["data"], split, i, None).unlabelled for i in range(3)]
    pretrained = load_pretrained(folders["roberta"], "float32", "cpu")
    ask = WordLogProbs(pretrained, spec, (spec.masked.template,), batch_size=1)
    right = 0
    for pool in pools:
        every = ask(pool.texts, [token for _, token in head.words])
        said_of_pool = np.stack([every[:, template, i] for i, (template, _) in enumerate(head.words)], axis=1)
        right += int(np.sum(head.logits(said_of_pool).argmax(axis=1) == pool.truth))
    metrics = read_summary(folder)["rounds"][1]["metrics"]
    assert (metrics["soft_labelled"], metrics["soft_label_agreement"]) == (36, right / 36)


def test_it_goes_on_as_if_it_had_not_been_stopped(job, tmp_path):
    _, whole = job("whole", rounds=3)
    for rounds in (1, 3):
        told, parts = job(f"until {rounds}", rounds=rounds, checkpoint=tmp_path / "kept")
        assert told.failure == ""
    assert said(told) == [("", 2), ("", 3)]
    for name, values in load_adapter(whole / "last_adapter").arrays.items():
        assert values.tobytes() == load_adapter(parts / "last_adapter").arrays[name].tobytes()


@pytest.mark.slow
def test_clients_started_anew_for_every_task_give_the_same_result(job):
    arrays = [load_adapter(job(str(anew), anew=anew)[1] / "last_adapter").arrays for anew in (False, True)]
    for name, values in arrays[0].items():
        assert values.tobytes() == arrays[1][name].tobytes()


def test_an_adapter_to_go_on_from_is_refused(job, lpfl_job):
    _, earlier = lpfl_job("earlier", rounds=1)
    told, _ = job(init_adapter=earlier / "last_adapter")
    assert "--init_adapter does not go with --soft_labels verbalizer" in told.failure


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dp_noise": 1.0}, "a verbalizer's sums would be a release of their own"),
        ({"tuning": "full"}, "--tuning full --soft_labels verbalizer"),
    ],
)
def test_what_does_not_go_with_it_is_said(options, sentence):
    with pytest.raises(UserError, match=sentence):
        build(LPFLConfig, {"soft_labels": "verbalizer", "unlabelled": 12, **options})


def test_what_the_model_is_asked_is_counted_whole(job):
    _, folder = job(rounds=1, local_epochs=1, local_steps=0)
    n_neutral, n_labelled, n_pool, n_soft = 3 * 3, 2 * 2 * 9, 36, 9  # three neutral texts at each of three clients
    trained_on = 2 * 9 + n_soft
    assert read_summary(folder)["example_forwards"] == n_neutral + n_labelled + n_pool + trained_on
