"""Options in TOML files: at the top, as presets and a client's own file have them, or in a table for each client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaretune.config.old_names import renew
from flaretune.config.options import OptionError, Options, options_of, problems
from flaretune.config.toml import Keys, line_of, read_toml
from flaretune.errors import near


def read_options(file: Path, *configs: type[Options]) -> tuple[dict[str, Any], list[str]]:
    """Options at the top of a file, by their names of today.

    Args:
        configs: whose options may stand there.

    Returns:
        What stands there, and a sentence for every old name.

    Raises:
        UserError: the file cannot be read, or holds what does not belong there; all of it is told.
    """
    text, values = read_toml(file)
    return _read(file, text, (), values, configs)


def read_client_tables(file: Path, config: type[Options]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Options in tables, one for each client; see `read_options`."""
    text, tables = read_toml(file)
    found, sentences, wrong = {}, [], []
    for name, table in tables.items():
        try:
            if not isinstance(table, Mapping):
                raise OptionError([f"{file}: {name} stands outside of a table; write it under [NAME-OF-A-CLIENT]"])
            found[name], more = _read(file, text, (name,), table, (config,))
            sentences += more
        except OptionError as error:
            wrong += error.sentences
    if wrong:
        raise OptionError(wrong)
    return found, list(dict.fromkeys(sentences))


def _read(
    file: Path, text: str, above: Keys, values: Mapping[str, Any], configs: tuple[type[Options], ...]
) -> tuple[dict[str, Any], list[str]]:
    table = f", table [{'.'.join(above)}]" if above else ""
    renewed, sentences = renew(values, *configs, place=f"{file}{table}: ")
    known = {item.name for config in configs for item in options_of(config)}

    def tell(name: str, said: str) -> str:
        return f"{file}, line {line_of(text, (*above, name))}{table}: {said}"

    wrong = [
        tell(name, f"there is no option {name!r}; {near(name, sorted(known - renewed.keys()))}")
        for name in renewed
        if name not in known
    ]
    for config in configs:
        own = {name: value for name, value in renewed.items() if name in config.model_fields}
        wrong += [tell(name, f"{name} = {said}") for name, said in problems(config, own)]
    if wrong:
        raise OptionError(list(dict.fromkeys(wrong)))  # two methods may have an option in common
    numbers = {item.name for config in configs for item in options_of(config) if item.kind is float}
    return {name: float(v) if name in numbers else v for name, v in renewed.items()}, sentences
