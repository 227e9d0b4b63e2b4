"""Messages between client and model server."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from flaretune.model_server.protocol import (
    Query,
    black_box_content,
    logits_message,
    named,
    query_message,
    read_logits,
    read_query,
    texts_content,
)
from tests.model_server.conftest import EXAMPLES, POINTS, SETTINGS, TEXTS
from tests.tasks_for_tests import review_task

BOX = named(black_box_content("a-model", "float32", review_task(), SETTINGS))
TEXT_SET = named(texts_content(EXAMPLES.texts, ["sentence"], prompt=True, perturbed=(0.5, 3)))


def test_a_handle_is_the_sha256_of_the_content():
    text = '{"a": [1, 2.5], "b": "caf\\u00e9"}'
    assert named({"b": "café", "a": [1, 2.5]}).handle == hashlib.sha256(text.encode()).hexdigest()


def test_what_a_client_keeps_for_itself_is_not_in_a_message():
    message = query_message(Query(BOX, TEXT_SET, POINTS), in_full=True)
    assert "source" not in message["black_box"]["content"]["task"]
    assert message["texts"]["content"] == {
        "columns": ["sentence"],
        "rows": [[text] for text in TEXTS],
        "prompt": True,
        "perturbed": [0.5, 3],
    }


@pytest.mark.parametrize("in_full", [True, False])
def test_a_message_is_read_as_it_was_written(in_full):
    sent = json.loads(json.dumps(query_message(Query(BOX, TEXT_SET, POINTS), in_full)))
    query = read_query(sent)
    assert np.array_equal(query.points, POINTS)
    assert (query.black_box.handle, query.texts.handle) == (BOX.handle, TEXT_SET.handle)
    assert query.black_box.content == (BOX.content if in_full else None)
    assert query.texts.content == (TEXT_SET.content if in_full else None)


def test_contents_travel_only_in_full_messages():
    short, long = (len(json.dumps(query_message(Query(BOX, TEXT_SET, POINTS), full))) for full in (False, True))
    assert not any(text in json.dumps(query_message(Query(BOX, TEXT_SET, POINTS), False)) for text in TEXTS)
    assert short < long


def changed(**entries):
    return {**query_message(Query(BOX, TEXT_SET, POINTS), True), **entries}


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (None, "lacks an entry"),
        ([], "lacks an entry"),
        ({}, "lacks an entry or has one of another type \\('version'\\)"),
        (changed(version=1), "version 1, and this model server speaks version 2"),
        (changed(points=None), "texts without points"),
        (changed(texts=None), "texts without points, or points without texts"),
        (changed(points=[]), "shape \\(0,\\)"),
        (changed(points=[[1.0, float("nan")]]), "finite"),
        (changed(points=[["a"]]), "could not convert"),
        (changed(black_box={"handle": "0" * 64, "content": {"a": 1}}), "sha256"),
        (changed(texts={"handle": TEXT_SET.handle}), "lacks an entry.*content"),
    ],
)
def test_what_is_no_message_is_refused(message, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_query(message)


def test_logits_arrive_to_the_bit():
    logits = np.random.default_rng(0).normal(size=(2, 3, 2)).astype(np.float32) * np.float32(1e-3)
    again = read_logits(json.loads(json.dumps(logits_message(logits))), (2, 3, 2))
    assert again.dtype == np.float32
    assert np.array_equal(again, logits)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 2\), and the query was of shape \(2, 4, 2\)"):
        read_logits(logits_message(logits), (2, 4, 2))
