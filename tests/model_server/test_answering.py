"""What a worker of the service answers, in this process."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from flaretune.model_server.answering import Answering, LatestKept
from flaretune.model_server.protocol import Ask, black_box_content, named, read_logits, texts_content
from flaretune.models.black_box import BlackBox
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


def answering(folder, cache_mb=16, **more):
    return Answering(load_pretrained(folder, "float32", "cpu"), batch_size=2, cache_mb=cache_mb, **more)


def logits_of(answer, n_points=4, n_texts=5):
    assert answer.status == 200, answer.body
    return read_logits(answer.body["logits"], (n_points, n_texts, 2))


@pytest.mark.parametrize("family", ["roberta", "gemma3"])
def test_answers_are_those_of_a_model_of_one_s_own(model_folders, family):
    folder = model_folders[family]
    local = open_prompted_model(
        review_task(), folder, SETTINGS, dtype="float32", device="cpu", batch_size=2, cache_mb=16
    )
    service = answering(folder)
    asks = [
        Ask(box(folder), texts(), POINTS),
        Ask(box(folder), texts(perturbed=(0.5, 7)), POINTS),
        Ask(box(folder), texts(prompt=False), np.zeros((1, 1))),
    ]
    plain, perturbed, zero_shot = (service.answer([ask])[0] for ask in asks)
    ours = local.black_box
    assert np.array_equal(logits_of(plain), ours.label_logits(POINTS, local.register(EXAMPLES)))
    expected = ours.label_logits(POINTS, local.register_perturbed(EXAMPLES, 0.5, 7))
    assert np.array_equal(logits_of(perturbed), expected)
    assert not np.array_equal(logits_of(perturbed), logits_of(plain))
    assert np.array_equal(logits_of(zero_shot, 1)[0], local.zero_shot_logits(EXAMPLES))


def test_what_it_does_not_know_it_asks_for(model_folders):
    folder = model_folders["roberta"]
    service, ask = answering(folder), Ask(box(folder), texts(), POINTS)
    short = Ask(only_handle(ask.black_box), only_handle(ask.texts), POINTS)
    assert (service.answer([short])[0].status, service.answer([short])[0].body) == (
        404,
        {"unknown": ask.black_box.handle},
    )
    facts = service.answer([Ask(ask.black_box, None, None)])[0]
    assert facts.body["model"] == {
        "name": folder, "kind": "masked", "model_type": "roberta", "hidden_size": 32, "dtype": "float32",
    }  # fmt: skip
    assert service.answer([short])[0].body == {"unknown": ask.texts.handle}
    first = logits_of(service.answer([ask])[0])
    assert np.array_equal(logits_of(service.answer([short])[0]), first)


def test_who_leaves_the_number_format_to_it_gets_what_it_computes_in(model_folders):
    folder = model_folders["roberta"]
    service = answering(folder)
    told, left = (Ask(box(folder, dtype=dtype), texts(), POINTS) for dtype in ("float32", "auto"))
    assert np.array_equal(*(logits_of(service.answer([ask])[0]) for ask in (told, left)))


def test_questions_to_one_black_box_are_asked_together(model_folders):
    folder = model_folders["gemma3"]
    service = answering(folder)
    few = EXAMPLES.take([0])
    asks = [Ask(box(folder), texts(examples=few), POINTS), Ask(box(folder), texts(), POINTS[:2])]
    alone = [logits_of(service.answer([asks[0]])[0], 4, 1), logits_of(service.answer([asks[1]])[0], 2, 5)]
    wrong = Ask(box(folder, dtype="bfloat16"), texts(), POINTS)
    together = service.answer([asks[0], wrong, asks[1]])
    np.testing.assert_allclose(logits_of(together[0], 4, 1), alone[0], rtol=0, atol=2e-5)
    np.testing.assert_allclose(logits_of(together[2], 2, 5), alone[1], rtol=0, atol=2e-5)
    assert together[1].status == 400  # which spoils nobody else's


def test_a_model_that_cannot_answer_says_why(model_folders, monkeypatch):
    """And the questions to another black box are answered."""
    folder = model_folders["roberta"]
    service, other = answering(folder), box(folder, settings=replace(SETTINGS, seed=2))
    asks = [Ask(box(folder), texts(), POINTS), Ask(other, texts(), POINTS)]
    before = service.answer(asks)
    [first, _] = [opened.prompted.black_box for opened in service._opened._kept.values()]

    def no_memory(questions):
        raise RuntimeError("out of memory\nsee the documentation")

    monkeypatch.setattr(first, "answer", no_memory)
    failed, answered = service.answer(asks)
    assert (failed.status, answered.body) == (500, before[1].body)
    assert failed.body == {"error": "the model cannot answer (out of memory), where a smaller --batch_size may help"}


def test_tasks_of_other_label_words_share_the_weights_and_not_the_head(model_folders):
    folder = model_folders["roberta"]
    service, task = answering(folder), review_task()
    other = named(
        {
            **box(folder).content,
            "task": {**box(folder).content["task"], **OTHER_WORDS},
        }
    )
    first = logits_of(service.answer([Ask(box(folder), texts(), POINTS)])[0])
    second = logits_of(service.answer([Ask(other, texts(), POINTS)])[0])
    assert not np.array_equal(first, second)
    assert np.array_equal(logits_of(service.answer([Ask(box(folder), texts(), POINTS)])[0]), first)
    models = [opened.prompted.pretrained.model for opened in service._opened._kept.values()]
    assert len(models) == 2
    embeddings = {model.get_input_embeddings().weight.data_ptr() for model in models}
    assert len(embeddings) == 1
    assert task.masked.label_words != tuple(OTHER_WORDS["masked"]["label_words"])


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda f: Ask(box("another"), texts(), POINTS), "--model_name .*, and was asked for 'another'"),
        (lambda f: Ask(box(f, dtype="bfloat16"), texts(), POINTS), "--dtype float32, and was asked for 'bfloat16'"),
        (lambda f: Ask(box(f), texts(), POINTS[:, :2]), "the points have 2 numbers each, and 6 are searched"),
        (
            lambda f: Ask(named({**box(f).content, "settings": {"n_prompt_tokens": 3}}), texts(), POINTS),
            "need the same version of flaretune",
        ),
        (lambda f: Ask(box(f), named({"columns": ["sentence"], "rows": []}), POINTS), "texts are missing"),
        (
            lambda f: Ask(box(f), named({**texts().content, "rows": [["a", "b"]]}), POINTS),
            "the question's texts cannot be read",
        ),
        (lambda f: Ask(box(f), named({**texts().content, "rows": [[3]]}), POINTS), "are no texts"),
        (
            lambda f: Ask(box(f), named({**texts().content, "columns": ["title"]}), POINTS),
            "text column 'sentence' .* is missing",
        ),
    ],
)
def test_wrong_questions_are_answered_with_a_sentence(model_folders, ask, sentence):
    [answer] = answering(model_folders["roberta"]).answer([ask(model_folders["roberta"])])
    assert answer.status == 400
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(answer.body["error"])


def test_the_oldest_make_room(model_folders):
    folder = model_folders["roberta"]
    service = answering(folder, most_texts=2)
    sets = [texts(examples=EXAMPLES.take([i])) for i in range(3)]
    for item in (sets[0], sets[1], sets[0], sets[2]):
        assert service.answer([Ask(box(folder), item, POINTS)])[0].status == 200
    status = [service.answer([Ask(box(folder), only_handle(item), POINTS)])[0].status for item in sets]
    assert status == [200, 404, 200]


def test_texts_of_rounds_that_have_passed_give_their_memory_to_new_ones(model_folders):
    """As at a site with a model of its own, so that the numbers stay those of --model_server local."""
    folder = model_folders["gemma3"]
    service = answering(folder, cache_mb=1)
    for round_number in range(60):
        asked = Ask(box(folder), texts(perturbed=(0.5, round_number)), POINTS)
        assert service.answer([asked])[0].status == 200
        targets = service._opened.get(asked.black_box.handle).targets
        assert None not in targets.get(asked.texts.handle).texts.caches
    assert 1 < len(targets._kept) < 60


def test_a_question_that_nobody_foresaw_fails_alone(model_folders):
    folder = model_folders["roberta"]
    huge = Ask(box(folder, settings=replace(SETTINGS, intrinsic_dim=10**12)), texts(), POINTS)
    failed, answered = answering(folder).answer([huge, Ask(box(folder), texts(), POINTS)])
    assert (failed.status, answered.status) == (500, 200)
    assert "the model cannot answer" in failed.body["error"]


def test_a_box_that_finds_no_memory_may_be_asked_for_again(model_folders, monkeypatch):
    """It is not that the model takes no prompt."""

    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    folder = model_folders["roberta"]
    service = answering(folder)
    with monkeypatch.context() as patch:
        patch.setattr(BlackBox, "label_logits", no_memory)
        failed = service.answer([Ask(box(folder), texts(), POINTS)])[0]
    assert failed.status == 500
    assert failed.body["error"].startswith("the model cannot answer (CUDA out of memory)")
    assert service.answer([Ask(box(folder), texts(), POINTS)])[0].status == 200


def test_a_gpu_that_has_failed_for_good_ends_the_worker(model_folders, monkeypatch, capsys):
    """Which would answer nobody any more, and fail questions faster than the other workers answer them."""
    folder = model_folders["roberta"]
    service = answering(folder)
    service.answer([Ask(box(folder), None, None)])
    [opened] = service._opened._kept.values()

    def illegal_access(questions):
        raise torch.AcceleratorError("an illegal memory access was encountered")

    def ended(status):
        raise SystemExit(status)

    monkeypatch.setattr(opened.prompted.black_box, "answer", illegal_access)
    monkeypatch.setattr("os._exit", ended)
    with pytest.raises(SystemExit, match="1"):
        service.answer([Ask(box(folder), texts(), POINTS)])
    assert "error: an illegal memory access" in capsys.readouterr().err


def test_latest_kept():
    kept = LatestKept(2)
    for handle in "ab":
        kept.keep(handle, handle.upper())
    assert kept.get("a") == "A"
    kept.keep("c", "C")
    assert [kept.get(handle) for handle in "abc"] == ["A", None, "C"]
