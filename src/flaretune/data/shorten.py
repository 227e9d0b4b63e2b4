"""Cutting the texts of an example that is too long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


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
