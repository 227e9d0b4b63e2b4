"""The one reader of TOML files: presets, options by client, a client's own file, task files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flaretune.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Keys = tuple[str, ...]  # the path to a value, from the outermost table on


def read_toml(file: Path, what: str = "") -> tuple[str, dict[str, Any]]:
    """The text of a TOML file in UTF-8, with or without a byte order mark, for `line_of`; and its contents.

    Args:
        what: what messages call it, in front of its name, e.g. ``"task file"``.

    Raises:
        UserError: it cannot be read, or is not TOML.
    """
    place = f"{what} {file}".lstrip()
    try:
        text = file.read_text(encoding="utf-8-sig")
        return text, tomllib.loads(text)
    except OSError as error:
        raise UserError(f"{place} cannot be read ({error.strerror}); check its path") from error
    except (ValueError, RecursionError) as error:  # ValueError: TOMLDecodeError and UnicodeDecodeError
        raise UserError(f"{place} is not valid TOML: {error}") from error


def line_of(text: str, path: Keys) -> int:
    """The line, counted from 1, on which the key of a path stands, or else the last table of the path that is there.

    Args:
        text: a valid TOML file.
        path: keys from the outermost table on; empty for the file.
    """
    lines = key_lines(text)
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def key_lines(text: str) -> dict[Keys, int]:
    """The line of every key and table of a valid TOML file.

    What the first n lines hold is asked of the TOML reader itself: where they are a valid file, what is new in it
    stands on the lines since the last such n. A file of options is short enough for that.
    """
    lines: dict[Keys, int] = {}
    first, so_far = 1, ""
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        so_far += line
        try:
            values = tomllib.loads(so_far)
        except ValueError:  # in the middle of a list or a text of several lines
            continue
        for path in _paths(values, ()):
            lines.setdefault(path, first)
        first = number + 1
    return lines


def _paths(values: Mapping[str, Any], above: Keys) -> Iterator[Keys]:
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, Mapping):
            yield from _paths(value, (*above, key))
