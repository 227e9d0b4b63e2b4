"""What the tokenizers of different model families have in common, for any fast tokenizer of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flaretune.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# A word that every tokenizer knows; what follows it is tokenised as in running text.
_CONTEXT = "a"


def plain_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Token ids of ``text`` without start and end tokens."""
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def continuation_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Token ids of ``text`` where it continues another text, as `` It was`` does behind a sentence.

    Tokenizers of the sentencepiece kind put a blank before the first word of what they are given; so the text
    is tokenised behind the word "a" and the ids of "a" are taken off. Only where "a" and the text's start
    melt into one token ("a" + "nd") is the text tokenised alone.
    """
    context = plain_ids(tokenizer, _CONTEXT)
    together = plain_ids(tokenizer, _CONTEXT + text)
    if together[: len(context)] == context:
        return together[len(context) :]
    return plain_ids(tokenizer, text)


def start_and_end_ids(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and behind a text, e.g. ``([bos], [])`` for LLaMA."""
    plain = plain_ids(tokenizer, _CONTEXT)
    full = tokenizer(_CONTEXT, add_special_tokens=True, verbose=False)["input_ids"]
    for first in range(len(full) - len(plain) + 1):
        if full[first : first + len(plain)] == plain:
            return full[:first], full[first + len(plain) :]
    raise UserError(f"tokenizer {tokenizer.name_or_path!r} changes a text when it adds special tokens; use another")


def special_ids(tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """Ids of all tokens that stand for no text (start, end, padding, mask, unknown, …); int64, ascending."""
    added = [token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special]
    return np.unique(np.array([*added, *tokenizer.all_special_ids], dtype=np.int64))


def text_ids(tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """Ids of all tokens that stand for text: the vocabulary without ``special_ids``; int64, ascending."""
    vocabulary = np.array(sorted(tokenizer.get_vocab().values()), dtype=np.int64)
    return np.setdiff1d(vocabulary, special_ids(tokenizer))
