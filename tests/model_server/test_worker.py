"""What a worker of the model server replies, in this process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import numpy as np
import pytest
import torch

from flaretune.data.load import Examples
from flaretune.model_server.protocol import Query, black_box_content, named, read_logits, texts_content
from flaretune.model_server.worker import LatestKept, Worker
from flaretune.models.black_box import BlackBox
from flaretune.models.causal import CausalLM
from flaretune.models.load import load_pretrained
from flaretune.models.prompted import open_prompted_model
from tests.model_server.conftest import EXAMPLES, POINTS, SETTINGS
from tests.tasks_for_tests import review_task

OTHER_WORDS = {"masked": {"template": "{sentence} It was {mask} .", "label_words": [" bad", " funny"]}}


def box(folder, dtype="float32", settings=SETTINGS, task=None):
    return named(black_box_content(folder, dtype, task or review_task(), settings))


def texts(prompt=True, perturbed=None, examples=EXAMPLES):
    return named(texts_content(examples.texts, ["sentence"], prompt=prompt, perturbed=perturbed))


def only_handle(item):
    return type(item)(item.handle, None)


def worker_of(folder, cache_mb=16, **more):
    return Worker(load_pretrained(folder, "float32", "cpu"), batch_size=2, cache_mb=cache_mb, **more)


def logits_of(answer, n_points=4, n_texts=5):
    assert answer.status == 200, answer.body
    return read_logits(answer.body["logits"], (n_points, n_texts, 2))


@pytest.mark.parametrize("family", ["roberta", "gemma3"])
def test_answers_are_those_of_a_model_of_one_s_own(model_folders, family):
    folder = model_folders[family]
    local = open_prompted_model(
        review_task(), folder, SETTINGS, dtype="float32", device="cpu", batch_size=2, cache_mb=16
    )
    worker = worker_of(folder)
    queries = [
        Query(box(folder), texts(), POINTS),
        Query(box(folder), texts(perturbed=(0.5, 7)), POINTS),
        Query(box(folder), texts(prompt=False), np.zeros((1, 1))),
    ]
    plain, perturbed, zero_shot = (worker.reply(query) for query in queries)
    ours = local.black_box
    assert np.array_equal(logits_of(plain), ours.label_logits(POINTS, local.register(EXAMPLES)))
    expected = ours.label_logits(POINTS, local.register_perturbed(EXAMPLES, 0.5, 7))
    assert np.array_equal(logits_of(perturbed), expected)
    assert not np.array_equal(logits_of(perturbed), logits_of(plain))
    assert np.array_equal(logits_of(zero_shot, 1)[0], local.zero_shot_logits(EXAMPLES))


def test_what_it_does_not_know_it_asks_for(model_folders):
    folder = model_folders["roberta"]
    worker, query = worker_of(folder), Query(box(folder), texts(), POINTS)
    short = Query(only_handle(query.black_box), only_handle(query.texts), POINTS)
    assert (worker.reply(short).status, worker.reply(short).body) == (
        404,
        {"unknown": query.black_box.handle},
    )
    facts = worker.reply(Query(query.black_box, None, None))
    assert facts.body["model"] == {
        "name": folder, "kind": "masked", "model_type": "roberta", "hidden_size": 32, "dtype": "float32",
    }  # fmt: skip
    assert worker.reply(short).body == {"unknown": query.texts.handle}
    first = logits_of(worker.reply(query))
    assert np.array_equal(logits_of(worker.reply(short)), first)


def test_who_leaves_the_number_format_to_it_gets_what_it_computes_in(model_folders):
    folder = model_folders["roberta"]
    worker = worker_of(folder)
    told, left = (Query(box(folder, dtype=dtype), texts(), POINTS) for dtype in ("float32", "auto"))
    assert np.array_equal(*(logits_of(worker.reply(query)) for query in (told, left)))


def test_a_model_that_cannot_answer_says_why(model_folders, monkeypatch):
    """And the next query is answered."""
    folder = model_folders["roberta"]
    worker, query = worker_of(folder), Query(box(folder), texts(), POINTS)
    before = worker.reply(query)

    def no_memory(*_):
        raise RuntimeError("out of memory\nsee the documentation")

    with monkeypatch.context() as patch:
        patch.setattr(BlackBox, "label_logits", no_memory)
        failed = worker.reply(query)
    assert failed.status == 500
    assert failed.body == {"error": "the model cannot answer (out of memory), where a smaller --batch_size may help"}
    assert worker.reply(query) == before


def test_tasks_of_other_label_words_share_the_weights_and_not_the_head(model_folders):
    folder = model_folders["roberta"]
    pretrained, task = load_pretrained(folder, "float32", "cpu"), review_task()
    worker = Worker(pretrained, batch_size=2, cache_mb=16)
    other = named({**box(folder).content, "task": {**box(folder).content["task"], **OTHER_WORDS}})
    first = logits_of(worker.reply(Query(box(folder), texts(), POINTS)))
    second = logits_of(worker.reply(Query(other, texts(), POINTS)))
    assert not np.array_equal(first, second)
    assert np.array_equal(logits_of(worker.reply(Query(box(folder), texts(), POINTS))), first)
    layer = next(
        values for name, values in pretrained.model.named_parameters() if "layer.1.output.dense.weight" in name
    )
    with torch.no_grad():
        layer *= 1.5  # of the one model that there is: both follow
    for before, content in ((first, box(folder)), (second, other)):
        assert not np.array_equal(logits_of(worker.reply(Query(content, texts(), POINTS))), before)
    assert task.masked.label_words != tuple(OTHER_WORDS["masked"]["label_words"])


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (lambda f: Query(box("another"), texts(), POINTS), "--model_name .*, and a client wants 'another'"),
        (lambda f: Query(box(f, dtype="bfloat16"), texts(), POINTS), "--dtype float32, and a client wants 'bfloat16'"),
        (lambda f: Query(box(f), texts(), POINTS[:, :2]), "the points have 2 numbers each, and 6 are searched"),
        (
            lambda f: Query(named({**box(f).content, "settings": {"n_prompt_tokens": 3}}), texts(), POINTS),
            "need the same version of flaretune",
        ),
        (lambda f: Query(box(f), named({"columns": ["sentence"], "rows": []}), POINTS), "texts are missing"),
        (
            lambda f: Query(box(f), named({**texts().content, "rows": [["a", "b"]]}), POINTS),
            "the query's texts cannot be read",
        ),
        (lambda f: Query(box(f), named({**texts().content, "rows": [[3]]}), POINTS), "are no texts"),
        (
            lambda f: Query(box(f), named({**texts().content, "columns": ["title"]}), POINTS),
            "text column 'sentence' .* is missing",
        ),
    ],
)
def test_wrong_questions_are_answered_with_a_sentence(model_folders, query, sentence):
    answer = worker_of(model_folders["roberta"]).reply(query(model_folders["roberta"]))
    assert answer.status == 400
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(answer.body["error"])


def test_the_oldest_make_room(model_folders):
    folder = model_folders["roberta"]
    worker = worker_of(folder, most_texts=2)
    sets = [texts(examples=EXAMPLES.take([i])) for i in range(3)]
    for item in (sets[0], sets[1], sets[0], sets[2]):
        assert worker.reply(Query(box(folder), item, POINTS)).status == 200
    status = [worker.reply(Query(box(folder), only_handle(item), POINTS)).status for item in sets]
    assert status == [200, 404, 200]


def test_texts_of_rounds_that_have_passed_give_their_memory_to_new_ones(model_folders, monkeypatch):
    """As at a client with a model of its own, so that the numbers stay those of --lm local."""
    folder, computed = model_folders["gemma3"], []

    def watched(self, points, texts, honest=BlackBox.label_logits):
        logits = honest(self, points, texts)
        computed.append(None not in texts.caches)
        return logits

    monkeypatch.setattr(BlackBox, "label_logits", watched)
    worker, rounds = worker_of(folder, cache_mb=1), [texts(perturbed=(0.5, n)) for n in range(60)]
    for item in rounds:
        assert worker.reply(Query(box(folder), item, POINTS)).status == 200
    assert len(computed) >= 60
    assert all(computed)
    status = [worker.reply(Query(box(folder), only_handle(item), POINTS)).status for item in rounds]
    n_left = status.count(200)
    assert status == [404] * (60 - n_left) + [200] * n_left
    assert 1 < n_left < 60


def test_a_question_that_nobody_foresaw_fails_alone(model_folders):
    folder = model_folders["roberta"]
    huge = Query(box(folder, settings=replace(SETTINGS, intrinsic_dim=10**12)), texts(), POINTS)
    worker = worker_of(folder)
    failed, answered = worker.reply(huge), worker.reply(Query(box(folder), texts(), POINTS))
    assert (failed.status, answered.status) == (500, 200)
    assert "the model cannot answer" in failed.body["error"]


def test_a_box_that_finds_no_memory_may_be_asked_for_again(model_folders, monkeypatch):
    """It is not that the model takes no prompt."""

    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    folder = model_folders["roberta"]
    worker = worker_of(folder)
    with monkeypatch.context() as patch:
        patch.setattr(BlackBox, "label_logits", no_memory)
        failed = worker.reply(Query(box(folder), texts(), POINTS))
    assert failed.status == 500
    assert failed.body["error"].startswith("the model cannot answer (CUDA out of memory)")
    assert worker.reply(Query(box(folder), texts(), POINTS)).status == 200


def test_a_gpu_that_has_failed_for_good_ends_the_worker(model_folders, monkeypatch, capsys):
    """Which would answer nobody any more, and fail queries faster than the other workers answer them."""
    folder = model_folders["roberta"]
    worker = worker_of(folder)

    def illegal_access(*_):
        raise torch.AcceleratorError("an illegal memory access was encountered")

    def ended(status):
        raise SystemExit(status)

    monkeypatch.setattr(BlackBox, "label_logits", illegal_access)
    monkeypatch.setattr("os._exit", ended)
    with pytest.raises(SystemExit, match="1"):
        worker.reply(Query(box(folder), texts(), POINTS))
    assert "error: an illegal memory access" in capsys.readouterr().err


def test_latest_kept():
    kept = LatestKept(2)
    for handle in "ab":
        kept.keep(handle, handle.upper())
    assert kept.get("a") == "A"
    kept.keep("c", "C")
    assert [kept.get(handle) for handle in "abc"] == ["A", None, "C"]


@pytest.mark.parametrize("family", ["roberta", "gemma3"])
def test_threads_that_ask_at_a_time_get_what_each_would_get_alone(model_folders, monkeypatch, family):
    """New texts among them, and the plain model: nothing of one pass is seen by another."""
    folder = model_folders[family]
    rng = np.random.default_rng(5)
    some = [Examples(EXAMPLES.texts[i:], EXAMPLES.labels[i:]) for i in range(4)]
    queries = [Query(box(folder), texts(examples=some[i % 4]), rng.normal(size=(4, 6))) for i in range(24)]
    queries += [Query(box(folder), texts(prompt=False, examples=one), np.zeros((1, 1))) for one in some]
    alone = worker_of(folder)
    expected = [alone.reply(query).body["logits"] for query in queries]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    together = worker_of(folder)
    assert together.lanes.count == 3
    with ThreadPoolExecutor(5) as threads:
        for _ in range(3):
            assert [reply.body.get("logits", reply.body) for reply in threads.map(together.reply, queries)] == expected


def test_a_query_that_is_sent_anew_while_its_texts_are_registered_waits_for_them(model_folders, monkeypatch):
    folder = model_folders["gemma3"]
    worker, query, register, registered = worker_of(folder), Query(box(folder), texts(), POINTS), BlackBox.register, []

    def slowly(self, examples, *args):
        registered.append(len(examples))
        if len(registered) == 1:
            again.append(threads.submit(worker.reply, query))
            wait(again, timeout=0.5)  # it cannot end before this does
        return register(self, examples, *args)

    worker.reply(Query(query.black_box, None, None))
    monkeypatch.setattr(BlackBox, "register", slowly)
    again = []
    with ThreadPoolExecutor(1) as threads:
        first = worker.reply(query)
    assert registered == [len(EXAMPLES)]
    assert np.array_equal(logits_of(again[0].result()), logits_of(first))


def test_texts_of_a_default_batch_are_divided_among_lanes(model_folders, monkeypatch):
    folder, lengths = model_folders["gemma3"], []
    many = Examples(EXAMPLES.texts * 3, np.tile(EXAMPLES.labels, 3))
    query = Query(box(folder), texts(examples=many), POINTS)
    cores = iter([1, 2])
    monkeypatch.setattr(torch, "get_num_threads", lambda: next(cores))
    ask = CausalLM.label_logits
    monkeypatch.setattr(
        CausalLM,
        "label_logits",
        lambda lm, prompts, batch, text=None: lengths.append(len(batch)) or ask(lm, prompts, batch, text),
    )
    found = []
    for expected in ([15], [7, 8]):
        worker = Worker(load_pretrained(folder, "float32", "cpu"), batch_size=0, cache_mb=16)
        lengths.clear()
        worker.reply(query)
        lengths.clear()
        found.append(logits_of(worker.reply(query), n_texts=15))
        assert sorted(lengths) == expected
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
