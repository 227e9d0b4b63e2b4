from __future__ import annotations

import numpy as np
import pytest

from flaretune.data.encode import Encoder
from flaretune.data.perturb import perturb
from flaretune.data.tokens import text_ids
from flaretune.errors import UserError
from tests.tasks_for_tests import review_task
from tests.tokenizers_for_tests import SENTENCES, bert_like, gpt2_like, llama_like, roberta_like

CASES = [
    (roberta_like, "masked", "add"),
    (bert_like, "masked", "cat"),
    (llama_like, "causal", "suffix"),
    (gpt2_like, "causal", "prefix"),
]


def encode(family, kind, mode, text=SENTENCES[0]):
    tokenizer = family()
    return tokenizer, Encoder(tokenizer, review_task(), kind, mode, 3, 200).encode({"sentence": text})


@pytest.mark.parametrize(("family", "kind", "mode"), CASES)
def test_at_rate_one_only_special_tokens_and_placeholders_remain(family, kind, mode):
    tokenizer, encoded = encode(family, kind, mode)
    before = encoded.ids.copy()
    # One id that occurs nowhere, so that every replacement shows.
    unused = next(i for i in text_ids(tokenizer) if i not in before)
    changed = perturb(encoded, 1.0, np.array([unused]), np.random.default_rng(1))
    kept = np.isin(before, tokenizer.all_special_ids)
    if mode == "add":
        kept[1:4] = True
    assert (changed.ids != unused).tolist() == kept.tolist()
    assert changed.ids[kept].tolist() == before[kept].tolist()
    assert (changed.insert, changed.answer) == (encoded.insert, encoded.answer)
    assert encoded.ids.tolist() == before.tolist()


def test_at_rate_zero_nothing_changes():
    tokenizer, encoded = encode(*CASES[0])
    same = perturb(encoded, 0.0, text_ids(tokenizer), np.random.default_rng(1))
    assert same.ids.tolist() == encoded.ids.tolist()


def test_the_rate_is_the_share_of_replaced_tokens_and_draws_are_uniform():
    _, encoded = encode(llama_like, "causal", "suffix", " ".join(SENTENCES))
    vocab = np.array([900, 901, 902, 903])  # ids that no token of the text has
    rng = np.random.default_rng(3)
    drawn = np.concatenate([perturb(encoded, 0.3, vocab, rng).ids[~encoded.frozen] for _ in range(200)])
    replaced = drawn[drawn >= 900]
    assert len(replaced) / len(drawn) == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(np.bincount(replaced - 900) / len(replaced), 0.25, atol=0.02)


def test_equal_generators_equal_replacements_and_a_generator_moves_on():
    tokenizer, encoded = encode(*CASES[2])
    vocab = text_ids(tokenizer)
    rng = np.random.default_rng(5)
    first, second = (perturb(encoded, 0.5, vocab, rng).ids.tolist() for _ in range(2))
    assert perturb(encoded, 0.5, vocab, np.random.default_rng(5)).ids.tolist() == first
    assert first != second


@pytest.mark.parametrize("family", [roberta_like, bert_like, llama_like, gpt2_like])
def test_no_special_token_is_drawn(family):
    tokenizer = family()
    assert not set(text_ids(tokenizer)) & set(tokenizer.all_special_ids)


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_is_a_probability(rate):
    tokenizer, encoded = encode(*CASES[0])
    with pytest.raises(UserError, match=f"rate {rate}"):
        perturb(encoded, rate, text_ids(tokenizer), np.random.default_rng(1))
