from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaretune.data.encode import Encoder
from flaretune.errors import UserError
from flaretune.models.verbalizer import label_word_ids
from tests.tasks_for_tests import pair_task, review_task
from tests.tokenizers_for_tests import SENTENCES, bert_like, gpt2_like, llama_like, roberta_like

MASKED = [roberta_like, bert_like]
CAUSAL = [llama_like, gpt2_like]
LONG = " ".join(SENTENCES)
FILM = {"sentence": "a moving film"}


def tokens(tokenizer, encoded) -> list[str]:
    return tokenizer.convert_ids_to_tokens(encoded.ids.tolist())


def with_large_vocabulary(tokenizer):
    tokenizer.add_tokens([f"filler{number}" for number in range(1100)])
    return tokenizer


# Masked models


@pytest.mark.parametrize("family", MASKED)
def test_add_puts_placeholders_behind_the_start_token(family):
    tokenizer = with_large_vocabulary(family())
    encoded = Encoder(tokenizer, review_task(), "masked", "add", 3, 64).encode(FILM)
    usual = tokenizer(f" . a moving film . It was {tokenizer.mask_token} .")["input_ids"]
    assert encoded.ids.tolist() == [usual[0], 1000, 1001, 1002, *usual[1:]]
    assert encoded.ids.dtype == np.int64
    assert encoded.insert == 1
    assert encoded.ids[encoded.answer] == tokenizer.mask_token_id
    assert tokens(tokenizer, encoded)[encoded.answer + 1 :][0] in (".", "Ġ.")


@pytest.mark.parametrize("family", MASKED)
def test_cat_is_the_usual_encoding(family):
    tokenizer = family()
    encoded = Encoder(tokenizer, review_task(), "masked", "cat", 3, 64).encode(FILM)
    assert encoded.ids.tolist() == tokenizer(f"a moving film . It was {tokenizer.mask_token} .")["input_ids"]
    assert encoded.insert == 0
    assert encoded.ids[encoded.answer] == tokenizer.mask_token_id


def test_what_stands_behind_the_placeholders_is_the_tasks():
    tokenizer = with_large_vocabulary(roberta_like())
    spec = review_task(placeholder_tail="")
    encoded = Encoder(tokenizer, spec, "masked", "add", 2, 64).encode(FILM)
    usual = tokenizer("a moving film . It was <mask> .")["input_ids"]
    assert encoded.ids.tolist() == [usual[0], 1000, 1001, *usual[1:]]


def test_a_small_vocabulary_lends_its_last_tokens():
    tokenizer = bert_like()
    tokenizer.add_tokens(["[RESERVED]"], special_tokens=True)  # now the last id, and special
    last = len(tokenizer) - 2
    encoded = Encoder(tokenizer, review_task(), "masked", "add", 3, 64).encode(FILM)
    assert encoded.ids[1:4].tolist() == [last - 2, last - 1, last]


@pytest.mark.parametrize("family", MASKED)
@pytest.mark.parametrize("mode", ["add", "cat"])
@pytest.mark.parametrize("template", ["{sentence} . It was {mask} .", "{mask} News: {sentence}"])
def test_a_text_that_spells_the_mask_does_not_move_the_answer(family, mode, template):
    tokenizer = family()
    mask = tokenizer.mask_token
    spec = review_task(masked={"template": template, "label_words": ["bad", "great"]})
    encoder = Encoder(tokenizer, spec, "masked", mode, 2, 64)
    encoded = encoder.encode({"sentence": f"{mask} a film {mask}"})
    positions = np.flatnonzero(encoded.ids == tokenizer.mask_token_id)
    assert len(positions) == 3
    assert encoded.answer == (positions[0] if template.startswith("{mask}") else positions[2])


@pytest.mark.parametrize("family", MASKED)
def test_frozen_are_special_tokens_and_placeholders(family):
    tokenizer = family()
    encoded = Encoder(tokenizer, review_task(), "masked", "add", 2, 64).encode(FILM)
    expected = np.zeros(len(encoded.ids), dtype=bool)
    expected[[0, 1, 2, encoded.answer, -1]] = True
    assert encoded.frozen.tolist() == expected.tolist()


def test_an_unknown_word_is_a_word():
    tokenizer = bert_like()
    encoded = Encoder(tokenizer, review_task(), "masked", "cat", 2, 64).encode({"sentence": "☃"})
    assert tokens(tokenizer, encoded)[:2] == ["[CLS]", "[UNK]"]
    assert encoded.frozen[:2].tolist() == [True, False]


# Causal models


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("mode", ["prefix", "suffix"])
def test_causal_ids_are_those_of_running_text(family, mode):
    tokenizer = family()
    encoded = Encoder(tokenizer, review_task(), "causal", mode, 4, 64).encode(FILM)
    assert encoded.ids.tolist() == tokenizer("a moving film It was")["input_ids"]
    assert encoded.answer == len(encoded.ids) - 1
    n_start = 1 if family is llama_like else 0
    assert encoded.insert == (n_start if mode == "prefix" else n_start + len(tokenizer.tokenize("a moving film")))
    assert encoded.frozen.tolist() == [True] * n_start + [False] * (len(encoded.ids) - n_start)


def test_no_end_token_where_a_tokenizer_would_add_one():
    tokenizer = llama_like()
    expected = tokenizer("a moving film It was")["input_ids"]
    tokenizer.add_eos_token = True
    assert tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id  # the tokenizer does add one
    encoded = Encoder(tokenizer, review_task(), "causal", "suffix", 4, 64).encode(FILM)
    assert encoded.ids.tolist() == expected


def test_a_chat_template_gives_what_the_tokenizer_makes_of_a_message():
    """As docs/how-to/own-task.md has it: the start token left out, the newline before the answer kept."""
    tokenizer = llama_like()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>", "<end>"]})
    tokenizer.chat_template = (
        "{{ bos_token }}{% for message in messages %}<turn>{{ message['role'] }}\n{{ message['content'] }}<end>\n"
        "{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
    )

    def chat(content: str, **options):
        messages = [{"role": "user", "content": content}]
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, **options)

    template = chat("{sentence}\nIs it good or bad ?", tokenize=False).removeprefix(tokenizer.bos_token)
    spec = review_task(causal={"template": template, "label_words": ["bad", "great"], "first_token": True})
    encoded = Encoder(tokenizer, spec, "causal", "prefix", 4, 128).encode(FILM)
    assert encoded.ids.tolist() == chat(f"{FILM['sentence']}\nIs it good or bad ?")
    assert encoded.ids.tolist().count(tokenizer.bos_token_id) == 1
    words = label_word_ids(tokenizer, spec, "causal")
    assert tokenizer.convert_ids_to_tokens(words.tolist()) == [
        tokenizer.tokenize(f"\n{w}")[2] for w in ("bad", "great")
    ]


@pytest.mark.parametrize("family", CAUSAL)
def test_a_pair_of_texts_has_its_prompt_behind_the_last(family):
    tokenizer = family()
    encoder = Encoder(tokenizer, pair_task(), "causal", "suffix", 4, 64)
    encoded = encoder.encode({"premise": "a film", "hypothesis": "a story"})
    assert encoded.ids.tolist() == tokenizer("a film ? a story Answer:")["input_ids"]
    assert encoded.ids[: encoded.insert].tolist() == tokenizer("a film ? a story")["input_ids"]


@pytest.mark.parametrize("family", CAUSAL)
def test_a_tail_is_the_same_whatever_the_text(family):
    encoder = Encoder(family(), review_task(), "causal", "suffix", 4, 64)
    tails = {tuple(e.ids[e.insert :]) for e in (encoder.encode({"sentence": s}) for s in SENTENCES)}
    assert len(tails) == 1


def test_suffix_needs_words_behind_the_text():
    spec = review_task(causal={"template": "Review: {sentence}", "label_words": [" bad", " great"]})
    with pytest.raises(UserError, match=r"'Review: {sentence}' ends with its text.*'prefix'"):
        Encoder(llama_like(), spec, "causal", "suffix", 4, 64)
    encoded = Encoder(llama_like(), spec, "causal", "prefix", 4, 64).encode(FILM)
    assert tokens(llama_like(), encoded)[encoded.answer] == "▁film"


# Length


ALL_MODES = [(family, "masked", mode) for family in MASKED for mode in ("add", "cat")] + [
    (family, "causal", mode) for family in CAUSAL for mode in ("prefix", "suffix")
]


@pytest.mark.parametrize(("family", "kind", "mode"), ALL_MODES)
@pytest.mark.parametrize("limit", [20, 33])
def test_a_long_text_is_cut_to_the_limit_and_nothing_else(family, kind, mode, limit):
    tokenizer, n = family(), 5
    encoded = Encoder(tokenizer, review_task(), kind, mode, n, limit).encode({"sentence": LONG})
    whole = Encoder(tokenizer, review_task(), kind, mode, n, 1000).encode({"sentence": LONG})
    inserted = 0 if mode == "add" else n
    assert len(encoded.ids) + inserted == limit
    # The front is that of the whole text, the back is its template: what lies between was cut out.
    n_back = {"masked": len(whole.ids) - whole.answer, "causal": len(tokenizer.tokenize(" It was"))}[kind]
    n_front = limit - inserted - n_back - (3 if kind == "masked" else 0)  # 3: "." "It" "was"
    assert encoded.ids[:n_front].tolist() == whole.ids[:n_front].tolist()
    assert encoded.ids[-n_back:].tolist() == whole.ids[-n_back:].tolist()
    assert encoded.answer - len(encoded.ids) == whole.answer - len(whole.ids)


@pytest.mark.parametrize("family", [roberta_like, llama_like])
def test_of_two_texts_the_longer_is_cut(family):
    tokenizer = family()
    kind, mode = ("masked", "add") if family is roberta_like else ("causal", "suffix")
    encoder = Encoder(tokenizer, pair_task(), kind, mode, 2, 30)
    text = tokenizer.decode(encoder.encode({"premise": LONG, "hypothesis": "a clever story"}).ids)
    assert "a clever story" in text
    assert "a moving and funny film" in text
    text = tokenizer.decode(encoder.encode({"premise": LONG, "hypothesis": LONG}).ids)
    assert text.count("a moving and funny") == 2


@settings(max_examples=50, deadline=None)
@given(
    case=st.sampled_from(ALL_MODES),
    premise=st.text(max_size=60),
    hypothesis=st.text(max_size=60),
    limit=st.integers(16, 50),
)
def test_any_texts_fit_and_keep_the_template(case, premise, hypothesis, limit):
    family, kind, mode = case
    tokenizer, n = family(), 3
    encoder = Encoder(tokenizer, pair_task(), kind, mode, n, limit)
    encoded = encoder.encode({"premise": premise, "hypothesis": hypothesis})
    assert len(encoded.ids) + (0 if mode == "add" else n) <= limit
    if kind == "masked":
        assert encoded.ids[encoded.answer] == tokenizer.mask_token_id
        assert encoded.frozen[encoded.answer]
    else:
        assert encoded.answer == len(encoded.ids) - 1
        assert tokenizer.decode(encoded.ids).endswith(" Answer:")


@pytest.mark.parametrize(("family", "kind", "mode"), ALL_MODES)
def test_the_smallest_limit_that_holds_the_template_works_and_one_less_does_not(family, kind, mode):
    tokenizer, n = family(), 5
    empty = Encoder(tokenizer, review_task(), kind, mode, n, 1000).encode({"sentence": ""})
    smallest = len(empty.ids) + (0 if mode == "add" else n)
    cut = Encoder(tokenizer, review_task(), kind, mode, n, smallest).encode({"sentence": LONG})
    # Not the same ids: where a text is missing, a tokenizer may make a token of the blanks around it.
    assert len(cut.ids) == len(empty.ids)
    message = f"n = {n} tokens and the template's own {smallest - n} tokens .* limit is {smallest - 1}"
    with pytest.raises(UserError, match=message):
        Encoder(tokenizer, review_task(), kind, mode, n, smallest - 1)


# The rest


def test_white_space_around_a_text_is_left_out():
    encoder = Encoder(gpt2_like(), review_task(), "causal", "prefix", 2, 64)
    padded = encoder.encode({"sentence": "  a moving film \n"})
    assert padded.ids.tolist() == encoder.encode(FILM).ids.tolist()


def test_no_prompt_at_all_is_allowed():
    encoded = Encoder(roberta_like(), review_task(), "masked", "add", 0, 64).encode(FILM)
    assert encoded.ids.tolist() == roberta_like()(" . a moving film . It was <mask> .")["input_ids"]


@pytest.mark.parametrize(
    ("family", "kind", "mode", "n", "message"),
    [
        (roberta_like, "masked", "prefix", 2, "mode 'prefix' .* masked .* add or cat"),
        (llama_like, "causal", "add", 2, "mode 'add' .* causal .* prefix or suffix"),
        (llama_like, "causal", "suffix", -1, "prompt of -1 tokens"),
        (llama_like, "masked", "add", 2, "has no mask token"),
        (bert_like, "masked", "add", 500, "n = 500 placeholders do not fit a vocabulary of"),
    ],
)
def test_arguments_that_do_not_fit(family, kind, mode, n, message):
    with pytest.raises(UserError, match=message):
        Encoder(family(), review_task(), kind, mode, n, 1000)


def test_a_missing_column():
    with pytest.raises(UserError, match="'sentence' of task 'reviews' is missing"):
        Encoder(gpt2_like(), review_task(), "causal", "prefix", 2, 64).encode({"text": "a"})
