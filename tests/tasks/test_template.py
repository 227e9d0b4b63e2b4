from __future__ import annotations

import pytest

from flaretune.errors import UserError
from flaretune.tasks.template import field_names, render, split_at_last_field, split_template


def test_parts_come_in_order():
    parts = split_template("{a} ? {mask} , {b}")
    assert parts == (("field", "a"), ("text", " ? "), ("field", "mask"), ("text", " , "), ("field", "b"))
    assert field_names(parts) == ["a", "mask", "b"]


def test_spans_point_at_the_texts():
    rendered = render(split_template("[ {a} ] {b}"), {"a": "one", "b": "{two}"}, start=" . ")
    assert rendered.text == " . [ one ] {two}"
    assert {field: rendered.text[slice(*span)] for field, span in rendered.spans.items()} == {
        "a": "one",
        "b": "{two}",
    }


def test_doubled_braces_are_braces():
    assert render(split_template("{{x}} {a}"), {"a": "1"}).text == "{x} 1"


@pytest.mark.parametrize(
    ("template", "head_fields", "tail"),
    [
        ("{sentence} It was", ["sentence"], " It was"),
        ("{a} ? {b}\nAnswer {{yes}}:", ["a", "b"], "\nAnswer {yes}:"),
        ("Review: {sentence}", ["sentence"], ""),
    ],
)
def test_split_behind_the_last_field(template, head_fields, tail):
    head, found_tail = split_at_last_field(split_template(template))
    assert field_names(head) == head_fields
    assert found_tail == tail


@pytest.mark.parametrize("template", ["{a", "a}", "{}", "{0}", "{a!r}", "{a:>8}", "{a.b}", "{a b}"])
def test_what_is_no_template_is_refused(template):
    with pytest.raises(UserError, match="template"):
        split_template(template)
