from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoTokenizer, BertConfig, GPT2Config, LlamaConfig, RobertaConfig

from flaretune.data.tokens import continuation_ids, special_ids, start_and_end_ids, text_ids
from tests.tokenizers_for_tests import (
    LABEL_WORDS,
    SENTENCES,
    bert_like,
    gpt2_like,
    llama_like,
    roberta_like,
)

FAMILIES = [roberta_like, bert_like, llama_like, gpt2_like]


@pytest.mark.parametrize(
    ("family", "config"),
    list(zip(FAMILIES, [RobertaConfig, BertConfig, LlamaConfig, GPT2Config], strict=True)),
)
def test_the_tests_tokenizers_survive_saving(tmp_path, family, config):
    tokenizer = family()
    tokenizer.save_pretrained(tmp_path)
    config().save_pretrained(tmp_path)  # as beside a model
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*SENTENCES, *LABEL_WORDS, "unknown wörds 😀"):
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.special_tokens_map == tokenizer.special_tokens_map


@pytest.mark.parametrize(
    ("family", "start", "end"),
    [
        (roberta_like, ["<s>"], ["</s>"]),
        (bert_like, ["[CLS]"], ["[SEP]"]),
        (llama_like, ["<s>"], []),
        (gpt2_like, [], []),
    ],
)
def test_start_and_end(family, start, end):
    tokenizer = family()
    found = start_and_end_ids(tokenizer)
    assert [tokenizer.convert_ids_to_tokens(ids) for ids in found] == [start, end]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tail", [" It was", " . It was", "? It was", "?"])
def test_a_continuation_is_tokenised_as_in_running_text(family, tail):
    tokenizer = family()
    sentence = "a moving film"
    together = tokenizer(sentence + tail, add_special_tokens=False)["input_ids"]
    alone = tokenizer(sentence, add_special_tokens=False)["input_ids"]
    assert alone + continuation_ids(tokenizer, tail) == together


@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_continuation_has_no_tokens(family):
    assert continuation_ids(family(), "") == []


def test_a_continuation_that_melts_with_its_context_is_tokenised_alone():
    tokenizer = roberta_like()
    assert tokenizer.tokenize("ad") == ["ad"]  # so "a" + "d" melt
    assert continuation_ids(tokenizer, "d") == tokenizer.convert_tokens_to_ids(["d"])


@pytest.mark.parametrize("family", FAMILIES)
def test_text_and_special_ids_are_the_vocabulary(family):
    tokenizer = family()
    special, text = special_ids(tokenizer), text_ids(tokenizer)
    assert set(special) == set(tokenizer.all_special_ids)
    assert np.array_equal(np.sort(np.concatenate([special, text])), np.arange(len(tokenizer)))


def test_reserved_tokens_are_special_and_added_words_are_not():
    tokenizer = llama_like()
    tokenizer.add_tokens(["<reserved>"], special_tokens=True)
    tokenizer.add_tokens(["hepatology"])
    assert tokenizer.convert_tokens_to_ids("<reserved>") in special_ids(tokenizer)
    assert tokenizer.convert_tokens_to_ids("hepatology") in text_ids(tokenizer)
