"""From texts to token ids with a place for the prompt and a place for the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flaretune.data.tokens import continuation_ids, special_ids, start_and_end_ids, text_ids
from flaretune.errors import UserError
from flaretune.tasks.spec import Kind, TaskSpec
from flaretune.tasks.template import MASK, Rendered, render, split_at_last_field, split_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MODES = {"masked": ("add", "cat"), "causal": ("prefix", "suffix")}
PLAIN = {"masked": "cat", "causal": "prefix"}  # that of an example without a prompt
FIRST_PLACEHOLDER = 1000  # as in Black-Box Tuning: ids 1000 … 1000 + n − 1


@dataclass(frozen=True, eq=False)
class Encoded:
    """One example as a model gets it, before prompt vectors are inserted.

    Attributes:
        ids: token ids, int64, shape (L,). In mode ``add`` the n placeholders are among them.
        insert: index where the prompt goes. ``add``: the placeholders are ids[insert : insert + n], and the
            prompt is added to their embeddings. Other modes: the prompt's vectors come in front of
            ids[insert].
        answer: index in ``ids`` of the answer position: the template's mask, or the last token (causal).
        frozen: bool, shape (L,): True for tokens that perturbation must keep.
    """

    ids: np.ndarray
    insert: int
    answer: int
    frozen: np.ndarray


class Encoder:
    """Renders a task's texts and turns them into token ids for one model.

    Args:
        kind: "masked" or "causal"; which wording is used.
        mode: where the prompt goes. Masked: "add" to placeholders behind the start token, "cat" in front of
            all. Causal: "prefix" behind the start token, "suffix" between the last text and the template's
            tail.
        n_prompt_tokens: length n of the prompt, 0 or more.
        max_length: the most positions an example may take, special tokens and prompt included. What is longer
            loses the end of its texts, the longest first, never anything else.

    Raises:
        UserError: a mode that the kind does not have, a tokenizer that does not fit the kind, no tail for
            "suffix", or no room left for a text.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        spec: TaskSpec,
        kind: Kind,
        mode: str,
        n_prompt_tokens: int,
        max_length: int,
    ):
        _check_arguments(tokenizer, kind, mode, n_prompt_tokens)
        self.tokenizer, self.spec, self.kind, self.mode = tokenizer, spec, kind, mode
        self.n_prompt_tokens, self.max_length = n_prompt_tokens, max_length

        self._start, end = start_and_end_ids(tokenizer)
        parts = split_template(spec.wording(kind).template)
        if kind == "masked":
            self._parts, self._tail = parts, end
        else:  # no end token: the answer is what comes next
            self._parts, tail = split_at_last_field(parts)
            self._tail = continuation_ids(tokenizer, tail)
        if mode == "suffix" and not self._tail:
            raise UserError(
                f"the causal template {spec.wording(kind).template!r} ends with its text, so that a prompt "
                "in mode 'suffix' would have nothing behind it; write words after the text, or use mode "
                "'prefix'"
            )
        self._rendered_start = spec.placeholder_tail if mode == "add" else ""
        self._placeholders = _placeholder_ids(tokenizer, n_prompt_tokens) if mode == "add" else []
        self._is_frozen = np.zeros(max(tokenizer.get_vocab().values()) + 1, dtype=bool)  # by token id
        self._is_frozen[_frozen_ids(tokenizer)] = True
        # How many tokens the rendered part of the template may take with its texts.
        self._room = max_length - n_prompt_tokens - len(self._start) - len(self._tail)
        self._check_room()

    def encode(self, texts: Mapping[str, str]) -> Encoded:
        """Encode one example.

        Args:
            texts: text column → text. White space around a text is left out.

        Raises:
            UserError: a column of the task is missing.
        """
        texts = self._own_texts(texts)
        rendered, middle, offsets = self._tokenise(texts)
        while len(middle) > self._room:
            texts = shorten(texts, rendered.spans, offsets, len(middle) - self._room)
            rendered, middle, offsets = self._tokenise(texts)

        before = [*self._start, *self._placeholders]
        ids = np.array([*before, *middle, *self._tail], dtype=np.int64)
        frozen = self._is_frozen[ids]
        frozen[: len(before)] = True
        answer = ids.size - 1
        if self.kind == "masked":
            answer = len(before) + self._mask_index(rendered, middle, offsets)
        insert = {
            "add": len(self._start),
            "cat": 0,
            "prefix": len(self._start),
            "suffix": ids.size - len(self._tail),
        }[self.mode]
        return Encoded(ids, insert, answer, frozen)

    def wanted_length(self, texts: Mapping[str, str]) -> int:
        """How many positions an example would take, special tokens and prompt included, if nothing were cut."""
        return self.max_length - self._room + len(self._tokenise(self._own_texts(texts))[1])

    def _own_texts(self, texts: Mapping[str, str]) -> dict[str, str]:
        """The texts of the task's columns, without the white space around them."""
        for column in self.spec.text_columns:
            if column not in texts:
                raise UserError(f"text column {column!r} of task {self.spec.name!r} is missing; give a text for it")
        return {column: texts[column].strip() for column in self.spec.text_columns}

    def _tokenise(self, texts: Mapping[str, str]) -> tuple[Rendered, list[int], list[tuple[int, int]]]:
        """Render and tokenise without start and end tokens: rendered text, ids, each token's (start, end)."""
        values = {**texts, MASK: self.tokenizer.mask_token or ""}
        rendered = render(self._parts, values, start=self._rendered_start)
        output = self.tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return rendered, output["input_ids"], output["offset_mapping"]

    def _mask_index(self, rendered: Rendered, ids: list[int], offsets: list[tuple[int, int]]) -> int:
        """Index of the template's mask; found by its place, since a text may spell the mask token as well."""
        position = rendered.spans[MASK][0]
        for index, (token_id, (start, end)) in enumerate(zip(ids, offsets, strict=True)):
            if token_id == self.tokenizer.mask_token_id and start <= position < end:
                return index
        raise UserError(
            f"the tokenizer does not see its mask token {self.tokenizer.mask_token!r} in {rendered.text!r}; "
            f"put white space around {{mask}} in the template"
        )

    def _check_room(self) -> None:
        no_texts = dict.fromkeys(self.spec.text_columns, "")
        n_template = len(self._tokenise(no_texts)[1])
        if n_template > self._room:
            n, fixed = self.n_prompt_tokens, self.max_length - self._room + n_template
            raise UserError(
                f"no text fits: a prompt of n = {n} tokens and the template's own {fixed - n} tokens "
                f"(special tokens included) make {fixed}, and the limit is {self.max_length}; use fewer "
                "prompt tokens or a larger limit"
            )


def _check_arguments(tokenizer: PreTrainedTokenizerFast, kind: str, mode: str, n_prompt_tokens: int) -> None:
    if mode not in MODES[kind]:
        raise UserError(f"mode {mode!r} is none of a {kind} model's; choose {' or '.join(MODES[kind])}")
    if n_prompt_tokens < 0:
        raise UserError(f"a prompt of {n_prompt_tokens} tokens is not possible; choose 0 or more")
    if not tokenizer.is_fast:
        raise UserError(f"tokenizer {tokenizer.name_or_path!r} is not a fast one; it needs a tokenizer.json")
    if kind == "masked" and tokenizer.mask_token_id is None:
        raise UserError(f"tokenizer {tokenizer.name_or_path!r} has no mask token; choose a masked language model")


def _placeholder_ids(tokenizer: PreTrainedTokenizerFast, n: int) -> list[int]:
    """Ids 1000 … 1000 + n − 1; in a vocabulary that ends before, the last n that are no special tokens."""
    if len(tokenizer) >= FIRST_PLACEHOLDER + n:
        return list(range(FIRST_PLACEHOLDER, FIRST_PLACEHOLDER + n))
    candidates = text_ids(tokenizer)
    if len(candidates) < n:
        raise UserError(f"n = {n} placeholders do not fit a vocabulary of {len(candidates)} tokens; use fewer")
    return candidates[len(candidates) - n :].tolist()


def _frozen_ids(tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """Special tokens but for "unknown", which stands for a word of the text (unless it has a second role)."""
    roles = ("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "pad_token_id", "mask_token_id")
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in [getattr(tokenizer, role) for role in roles]:
        return special_ids(tokenizer)
    return np.setdiff1d(special_ids(tokenizer), [unknown])


def shorten(
    texts: Mapping[str, str],
    spans: Mapping[str, tuple[int, int]],
    offsets: Sequence[tuple[int, int]],
    excess: int,
) -> dict[str, str]:
    """Cut ``excess`` tokens in all from the ends of texts, each from the text that is then the longest.

    Args:
        texts: column → text; at least one is not empty.
        spans: column → (start, end) of the text in the rendered template, for the columns that are in it.
        offsets: (start, end) of each token in the rendered template; a token may begin with the blank before
            it.
        excess: how many tokens to cut, at least 1. All texts become empty where they have no more than that.

    Returns:
        The texts, at least one of them shorter. Tokenised anew they can still be a little too long, since the
        tokens at a cut change; then cut again.
    """
    starts = {column: _token_starts(*span, offsets) for column, span in spans.items() if column in texts}
    keep = {column: len(token_starts) for column, token_starts in starts.items()}
    for _ in range(excess):
        longest = max(keep, key=lambda column: keep[column])
        if keep[longest] == 0:
            return dict.fromkeys(texts, "")
        keep[longest] -= 1
    shorter = dict(texts)
    for column, token_starts in starts.items():
        if keep[column] < len(token_starts):
            shorter[column] = texts[column][: token_starts[keep[column]]].rstrip()
    return shorter


def _token_starts(first: int, last: int, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The characters, counted from ``first``, at which the tokens between ``first`` and ``last`` begin.

    A token that is only a blank has no width where a tokenizer trims blanks; it counts as a token all the same.
    """
    return [max(start - first, 0) for start, end in offsets if start < last and max(end, start + 1) > first]
