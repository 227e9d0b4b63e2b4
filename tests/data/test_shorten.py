from __future__ import annotations

from flaretune.data.encode import shorten


def words(text: str, first: int = 0) -> list[tuple[int, int]]:
    """(start, end) of each word of a text that stands at ``first``."""
    spans, position = [], 0
    for word in text.split(" "):
        spans.append((first + position, first + position + len(word)))
        position += len(word) + 1
    return spans


def cut(a: str, b: str, excess: int) -> dict[str, str]:
    """Shorten two texts in the template "{a} ? {b}", one token a word."""
    first_b = len(a) + len(" ? ")
    offsets = [*words(a), (len(a) + 1, len(a) + 2), *words(b, first_b)]
    spans = {"a": (0, len(a)), "b": (first_b, first_b + len(b))}
    return shorten({"a": a, "b": b}, spans, offsets, excess)


def test_the_longest_text_loses_its_end():
    assert cut("one two three four", "five six", 2) == {"a": "one two", "b": "five six"}


def test_equal_texts_lose_in_turn():
    assert cut("one two three", "four five six", 4) == {"a": "one", "b": "four"}


def test_texts_that_are_too_short_become_empty():
    assert cut("one two", "three", 9) == {"a": "", "b": ""}


def test_a_token_that_begins_with_the_blank_before_it_leaves_no_blank():
    shorter = shorten({"a": "one two"}, {"a": (3, 10)}, [(0, 3), (3, 6), (6, 10)], 1)
    assert shorter == {"a": "one"}


def test_tokens_of_one_character_go_together():
    # An emoji of four byte tokens: all of them have the character's offsets.
    shorter = shorten({"a": "x😀"}, {"a": (0, 2)}, [(0, 1), (1, 2), (1, 2), (1, 2), (1, 2)], 1)
    assert shorter == {"a": "x"}
