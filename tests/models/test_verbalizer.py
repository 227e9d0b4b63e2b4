from __future__ import annotations

import numpy as np
import pytest

from flaretune.errors import UserError
from flaretune.models.verbalizer import label_word_ids
from tests.tasks_for_tests import pair_task, review_task
from tests.tokenizers_for_tests import bert_like, gpt2_like, llama_like, roberta_like, xlm_roberta_like


def masked(*words: str):
    template = "{sentence} . It was {mask} ."
    return review_task(masked={"template": template, "label_words": list(words)})


def causal(*words: str, template: str = "{sentence} It was"):
    return review_task(causal={"template": template, "label_words": list(words)})


@pytest.mark.parametrize(
    ("family", "kind", "words", "expected"),
    [
        (roberta_like, "masked", ("bad", "great"), ["bad", "great"]),
        (roberta_like, "masked", (" bad", " great"), ["Ġbad", "Ġgreat"]),
        (bert_like, "masked", ("bad", "great"), ["bad", "great"]),
        (bert_like, "masked", (" Bad", " GREAT"), ["bad", "great"]),
        (gpt2_like, "causal", (" terrible", " great"), ["Ġterrible", "Ġgreat"]),
        (llama_like, "causal", (" terrible", " great"), ["▁terrible", "▁great"]),
    ],
)
def test_words_are_looked_up_as_written(family, kind, words, expected):
    tokenizer = family()
    spec = {"masked": masked, "causal": causal}[kind](*words)
    ids = label_word_ids(tokenizer, spec, kind)
    assert ids.dtype == np.int64
    assert tokenizer.convert_ids_to_tokens(ids.tolist()) == expected


def chinese(before_mask: str):
    template = f"{{sentence}}{before_mask}{{mask}}\u3002"
    return review_task(masked={"template": template, "label_words": ["\u5dee", "\u597d"]})


@pytest.mark.parametrize("before_mask", ["\u5f88", ""])  # "very"
def test_a_masked_word_that_is_no_token_alone_is_looked_up_behind_what_stands_before_the_mask(before_mask):
    tokenizer = xlm_roberta_like(words=["\u5f88", "\u5dee", "\u597d"])
    assert tokenizer.tokenize("\u5dee") == ["\u2581", "\u5dee"]
    ids = label_word_ids(tokenizer, chinese(before_mask), "masked")
    assert tokenizer.convert_ids_to_tokens(ids.tolist()) == ["\u5dee", "\u597d"]
    assert tokenizer("a\u5f88\u5dee", add_special_tokens=False)["input_ids"][-1] == ids[0]


def test_a_blank_before_the_mask_is_named_where_it_is_in_the_way():
    tokenizer = xlm_roberta_like(words=["\u5f88", "\u5dee", "\u597d"])
    with pytest.raises(UserError, match=r"is not one token .* or leave out the blank before \{mask\}$"):
        label_word_ids(tokenizer, chinese("\u5f88 "), "masked")


@pytest.mark.parametrize("family", [gpt2_like, llama_like])
def test_a_causal_word_is_the_token_that_running_text_goes_on_with(family):
    tokenizer = family()
    ids = label_word_ids(tokenizer, pair_task(), "causal")
    for word_id, word in zip(ids, (" Yes", " Maybe", " No"), strict=True):
        assert tokenizer(f"a film ? a story Answer:{word}")["input_ids"][-1] == word_id


def test_behind_a_word_llama_writes_no_blank_of_its_own():
    # Alone, "bad" would be "▁bad"; written on behind "It was:" without a blank it is other tokens.
    with pytest.raises(UserError, match=r"label word 'bad' .* is not one token .* but"):
        label_word_ids(llama_like(), causal("bad", "great", template="{sentence} It was:"), "causal")


@pytest.mark.parametrize(
    ("family", "kind", "words", "message"),
    [
        (roberta_like, "masked", ("bad", "heartwarming"), r"'heartwarming' of task 'reviews' .*\['h"),
        (roberta_like, "masked", ("bad", "great film"), r"'great film' .* \['great', 'Ġfilm'\]"),
        (bert_like, "masked", ("bad", "☃"), r"'☃' .* \['\[UNK\]'\]"),
        (bert_like, "masked", ("great", "Great"), "'great' and 'Great' .* are the same token 'great'"),
        (gpt2_like, "causal", (" bad", " heartwarming"), "' heartwarming'"),
    ],
)
def test_words_that_are_not_one_token_of_their_own(family, kind, words, message):
    spec = {"masked": masked, "causal": causal}[kind](*words)
    with pytest.raises(UserError, match=message):
        label_word_ids(family(), spec, kind)


@pytest.mark.parametrize("template", ["{sentence} It wa", "{sentence}"])
def test_a_word_that_melts_with_what_stands_before_it(template):
    # "wa" + "s" is the token "was", and "a" + "d" is "ad": the word changes the tokens before it.
    word = "s" if template.endswith("wa") else "d"
    with pytest.raises(UserError, match=f"'{word}' of task 'reviews' melts with the end of the causal template"):
        label_word_ids(gpt2_like(), causal(" bad", word, template=template), "causal")
