"""TOML files of options: presets, and options by site."""

from __future__ import annotations

import difflib
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from flaretune.errors import UserError, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path, *configs: type, tables_of: type | None = None) -> dict[str, Any]:
    """Read options, or tables of options.

    Args:
        path: the file.
        configs: dataclasses whose fields may stand at the top of the file.
        tables_of: a dataclass whose fields may stand in tables of any name.

    Raises:
        UserError: the file cannot be read, or holds a key or a type that does not belong there.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its path") from error
    except (ValueError, RecursionError) as error:  # ValueError: TOMLDecodeError and UnicodeDecodeError
        raise UserError(f"{path} is not valid TOML: {error}") from error
    if tables_of is None:
        return _check(values, str(path), configs)
    for name, table in values.items():
        if not isinstance(table, dict):
            raise UserError(f"{path}: {name} stands outside of a table; write it under [NAME-OF-A-SITE]")
        _check(table, f"{path}, table [{name}]", (tables_of,))
    return values


def _check(values: dict[str, Any], place: str, configs: tuple[type, ...]) -> dict[str, Any]:
    types = {item.name: get_type_hints(config)[item.name] for config in configs for item in fields(config)}
    for key, value in values.items():
        if key not in types:
            near = difflib.get_close_matches(key, types, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(types)}"
            raise UserError(f"{place}: there is no option {key!r}; {hint}")
        wanted = types[key]
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            values[key] = float(value)
        elif type(value) is not wanted:
            raise UserError(f"{place}: {key} = {shown(value)} must be of type {wanted.__name__}")
    return values
