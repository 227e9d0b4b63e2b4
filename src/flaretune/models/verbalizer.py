"""Label words as token ids: the verbalizer (Schick and Schütze, PET, arXiv 2001.07676)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flaretune.data.tokens import plain_ids
from flaretune.errors import UserError
from flaretune.tasks.spec import Kind, TaskSpec
from flaretune.tasks.template import split_at_last_field, split_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def label_word_ids(tokenizer: PreTrainedTokenizerFast, spec: TaskSpec, kind: Kind) -> np.ndarray:
    """Look up the one token of each label word.

    For a masked model the word is tokenised as it is written. For a causal model it is tokenised behind the
    template's tail, as the model would go on writing, and must add exactly one token.

    Returns:
        Token ids by class id, int64, shape (C,).

    Raises:
        UserError: a word is not exactly one known token or melts with the template, or two are one token.
    """
    wording = spec.wording(kind)
    tail = "" if kind == "masked" else split_at_last_field(split_template(wording.template))[1]
    ids: list[int] = []
    for word in wording.label_words:
        tokens = plain_ids(tokenizer, word) if kind == "masked" else _ids_behind(tokenizer, tail, word)
        if len(tokens) != 1 or tokens[0] == tokenizer.unk_token_id:
            pieces = tokenizer.convert_ids_to_tokens(tokens)
            raise UserError(
                f"label word {word!r} of task {spec.name!r} is not one token of {tokenizer.name_or_path!r} "
                f"but {pieces}; choose a word that is one token, or write it with or without a leading blank"
            )
        if tokens[0] in ids:
            raise UserError(
                f"label words {wording.label_words[ids.index(tokens[0])]!r} and {word!r} of task "
                f"{spec.name!r} are the same token {tokenizer.convert_ids_to_tokens(tokens)[0]!r}; choose "
                "words that differ"
            )
        ids.append(tokens[0])
    return np.array(ids, dtype=np.int64)


def _ids_behind(tokenizer: PreTrainedTokenizerFast, tail: str, word: str) -> list[int]:
    """The tokens that ``word`` adds behind a text that ends in ``tail``."""
    before = plain_ids(tokenizer, "a" + tail)
    together = plain_ids(tokenizer, "a" + tail + word)
    if together[: len(before)] != before:
        raise UserError(
            f"label word {word!r} melts with the end of the causal template, {tail!r}, into "
            f"{tokenizer.convert_ids_to_tokens(together)}; begin the word with a blank"
        )
    return together[len(before) :]
