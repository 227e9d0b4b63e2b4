"""Label words as token ids: the verbalizer (Schick and Schütze, PET, arXiv 2001.07676).

A class of several words is scored by the mean of their logits, which is the mean of their log-probabilities but for a
number that all classes share: so PET's own code has it for several words, and so a class gains nothing by having more
words than another (the sum of their probabilities, the other way that is in use, gives it more).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flaretune.data.tokens import plain_ids
from flaretune.errors import UserError
from flaretune.tasks.checks import alternatives, needs_label_words
from flaretune.tasks.spec import Kind, TaskSpec, Wording
from flaretune.tasks.template import MASK, split_at_last_field, split_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def label_word_ids(tokenizer: PreTrainedTokenizerFast, spec: TaskSpec, kind: Kind) -> np.ndarray:
    """Look up the one token of each label word.

    For a masked model the word is tokenised as it is written and, if that is not one token, behind what stands before
    the mask. For a causal model it is tokenised behind the template's tail, as the model would go on writing, and must
    add exactly one token.

    Returns:
        Token ids of the W words in the order of their classes, int64, shape (W,); W is the number of classes C, or
        more where a class has several words (see `word_classes`).

    Raises:
        UserError: a word is not exactly one known token or melts with the template, or two are one token.
    """
    ids, problems = look_up(tokenizer, spec.wording(kind), kind, f" of task {spec.name!r}")
    for problem in problems:
        raise UserError(problem)
    return np.array(ids, dtype=np.int64)


def word_classes(wording: Wording) -> np.ndarray | None:
    """The class of each of the W label words, int64, shape (W,), ascending; None where every class has one."""
    counts = [len(alternatives(words)) for words in wording.label_words]
    return None if max(counts) == 1 else np.repeat(np.arange(len(counts)), counts)


def look_up(
    tokenizer: PreTrainedTokenizerFast, wording: Wording, kind: Kind, whose: str = ""
) -> tuple[list[int | None], list[str]]:
    """Look up label words, those that are wrong too.

    Args:
        tokenizer, wording, kind: whose words, and for what kind of model.
        whose: what messages say behind a word.

    Returns:
        The token id of every word, None for one that has none; and a sentence for everything that is wrong.
    """
    if not wording.has_label_words:
        return [], [needs_label_words("everything else", whose)]
    words = [word for of_class in wording.label_words for word in alternatives(of_class)]
    ids: list[int | None] = []
    problems: list[str] = []
    parts = split_template(wording.template)
    if kind == "masked":
        parts = parts[: parts.index(("field", MASK))]
    # None where the word begins the text
    tail = split_at_last_field((("field", ""), *parts))[1] if parts else None
    for word in words:
        try:
            token = _token_of(tokenizer, tail, word, kind, wording.first_token)
        except UserError as error:
            problems.append(f"label word {word!r}{whose} {error}")
            token = None
        if token is not None and token in ids:
            problems.append(
                f"label words {words[ids.index(token)]!r} and {word!r}{whose} are the same token "
                f"{tokenizer.convert_ids_to_tokens(token)!r}; choose words that differ"
            )
        ids.append(token)
    return ids, problems


def _token_of(tokenizer: PreTrainedTokenizerFast, tail: str | None, word: str, kind: Kind, first_token: bool) -> int:
    """The one token of a word, or its first one if that may stand for it."""
    tokens = plain_ids(tokenizer, word) if kind == "masked" else _ids_behind(tokenizer, tail or "", word)
    if tokens is None:
        melted = tokenizer.convert_ids_to_tokens(plain_ids(tokenizer, f"a{tail}{word}"))
        raise UserError(f"melts with the end of the causal template, {tail!r}, into {melted}; begin it with a blank")
    is_one = len(tokens) == 1 or (first_token and len(tokens) > 1)
    advice = "choose a word that is one token, or write it with or without a leading blank"
    if kind == "masked" and not is_one and tail is not None:
        # sentencepiece puts a blank of its own, a token before words without one, in front of a word that stands alone
        behind = _ids_behind(tokenizer, tail.rstrip(), word) or []
        if len(behind) == 1 and tail == tail.rstrip():
            tokens, is_one = behind, True
        elif len(behind) == 1:
            advice += ", or leave out the blank before {mask}"
    if is_one and tokens[0] != tokenizer.unk_token_id:
        return tokens[0]
    raise UserError(
        f"is not one token of {tokenizer.name_or_path!r} but {tokenizer.convert_ids_to_tokens(tokens)}; {advice}"
    )


def _ids_behind(tokenizer: PreTrainedTokenizerFast, tail: str, word: str) -> list[int] | None:
    """The tokens that ``word`` adds behind a text that ends in ``tail``; None where it changes those before it."""
    before = plain_ids(tokenizer, "a" + tail)
    together = plain_ids(tokenizer, "a" + tail + word)
    return together[len(before) :] if together[: len(before)] == before else None
