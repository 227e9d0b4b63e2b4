"""Templates such as ``"{sentence} . It was {mask} ."``: taken apart, and filled with texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter

from flaretune.errors import UserError

MASK = "mask"

# A literal, or a field's name: ("text", " . It was "), ("field", "mask").
Part = tuple[str, str]


@dataclass(frozen=True)
class Rendered:
    """A filled template and where each field landed in it.

    Attributes:
        text: the filled template.
        spans: field name → (start, end), character positions in ``text``, end exclusive.
    """

    text: str
    spans: dict[str, tuple[int, int]]


def split_template(template: str) -> tuple[Part, ...]:
    """Take a template apart into literals and fields, in order.

    A field is written ``{name}``; ``{{`` and ``}}`` stand for braces.

    Raises:
        UserError: a brace without its partner, ``{}``, or a format after the name as in ``{name:>8}``.
    """
    parts: list[Part] = []
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise UserError(
            f"template {template!r} cannot be read ({error}); write a field as {{name}} and a brace as {{{{ or }}}}"
        ) from error
    for literal, field, format_spec, conversion in pieces:
        if literal:
            parts.append(("text", literal))
        if field is None:
            continue
        if not field.isidentifier() or format_spec or conversion:
            raise UserError(
                f"template {template!r} has a field that is not a plain name in braces such as {{sentence}}"
            )
        parts.append(("field", field))
    return tuple(parts)


def field_names(parts: tuple[Part, ...]) -> list[str]:
    """The fields of a template in order, the mask included, each as often as it stands there."""
    return [value for kind, value in parts if kind == "field"]


def split_at_last_field(parts: tuple[Part, ...]) -> tuple[tuple[Part, ...], str]:
    """Split a template behind its last field; the tail of ``"{sentence} It was"`` is ``" It was"``."""
    last = max(i for i, (kind, _) in enumerate(parts) if kind == "field")
    return parts[: last + 1], "".join(value for _, value in parts[last + 1 :])


def render(parts: tuple[Part, ...], values: Mapping[str, str], start: str = "") -> Rendered:
    """Fill a template.

    Args:
        parts: what ``split_template`` gave.
        values: field name → what stands there; each name at most once in the template.
        start: put in front of the template.
    """
    text = start
    spans = {}
    for kind, value in parts:
        piece = values[value] if kind == "field" else value
        if kind == "field":
            spans[value] = (len(text), len(text) + len(piece))
        text += piece
    return Rendered(text, spans)
