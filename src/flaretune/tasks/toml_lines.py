"""On which line of a TOML file a key stands."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Path = tuple[str, ...]


def line_of(text: str, path: Path) -> int:
    """The line, counted from 1, on which the key of a path stands, or else the last table of the path that is there.

    Args:
        text: a valid TOML file.
        path: keys from the outermost table on; empty for the file.
    """
    lines = key_lines(text)
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def key_lines(text: str) -> dict[Path, int]:
    """The line of every key and table of a valid TOML file.

    What the first n lines hold is asked of the TOML reader itself: where they are a valid file, what is new in it
    stands on the lines since the last such n. A task file is short enough for that.
    """
    lines: dict[Path, int] = {}
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


def _paths(values: Mapping[str, Any], above: Path) -> Iterator[Path]:
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, Mapping):
            yield from _paths(value, (*above, key))
