"""Options as fields of a dataclass: one source for flags, defaults, help texts and checks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, asdict, field, fields
from typing import Any, TypeVar, get_type_hints

from flaretune.errors import UserError, shown

Config = TypeVar("Config")


def option(
    default: Any,
    help: str,
    *,
    group: str,
    main: bool = False,
    choices: Sequence[Any] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A dataclass field that knows its help text, whether short help shows it, and the values it may take."""
    limits = {"choices": choices, "at_least": at_least, "above": above, "at_most": at_most}
    return field(default=default, metadata={"help": help, "group": group, "main": main, **limits})


def same_option(config: type, name: str, **other: Any) -> Any:
    """The option that another config has under this name; `other` replaces its help, group or limits."""
    item = next(item for item in fields(config) if item.name == name)
    return field(default=item.default, metadata={**item.metadata, **other})


def check_fields(config: Any) -> None:
    """Check every option of a config; see `check_values`."""
    check_values(type(config), vars(config))


def check_values(config: type, values: Mapping[str, Any]) -> None:
    """Check values of a config's options against their types, choices and limits; other names are passed over.

    Raises:
        UserError: names the flag, the value and what would be right.
    """
    hints = get_type_hints(config)
    for item in (item for item in fields(config) if item.name in values):
        value, limits, wanted = values[item.name], item.metadata, hints[item.name]
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise UserError(f"--{item.name} {shown(value)}: must be of type {wanted.__name__}")
        flag = f"--{item.name} {value}"
        if limits["choices"] is not None and value not in limits["choices"]:
            raise UserError(f"{flag}: must be one of {', '.join(map(str, limits['choices']))}")
        if wanted is float and not abs(value) <= sys.float_info.max:
            raise UserError(f"{flag}: must be a finite number")
        if limits["at_least"] is not None and value < limits["at_least"]:
            raise UserError(f"{flag}: must be at least {limits['at_least']}")
        if limits["above"] is not None and value <= limits["above"]:
            raise UserError(f"{flag}: must be above {limits['above']}")
        if limits["at_most"] is not None and value > limits["at_most"]:
            raise UserError(f"{flag}: must be at most {limits['at_most']}")


def add_flags(
    parser: argparse.ArgumentParser,
    *configs: type,
    groups: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
    short: bool = False,
) -> None:
    """Add a flag for every option of the config classes, in their groups, without defaults (see `build`).

    Args:
        parser: gets the flags.
        configs: dataclasses whose fields are made by `option`.
        groups: sentence that stands under the heading of a group, by its name, in the order in which groups come.
        only: names of the options to add; None for all.
        short: let --help show only the main options, and add a flag --help_all that shows all.
    """
    if short:
        parser.add_argument(
            "--help_all", action=_HelpAll, nargs=0, default=argparse.SUPPRESS, help="show all options and exit"
        )
    headings = groups or {}
    places = {name: place for place, name in enumerate(headings, start=1)}  # a group of no heading comes first
    made: dict[str, Any] = {}
    wanted = [(item, get_type_hints(config)[item.name]) for config in configs for item in fields(config)]
    for item, kind in sorted(wanted, key=lambda pair: places.get(pair[0].metadata["group"], 0)):
        if only is not None and item.name not in only:
            continue
        name = item.metadata["group"]
        if name not in made:
            made[name] = parser.add_argument_group(name, None if short else headings.get(name))
            made[name].sentence = headings.get(name)
        default = "" if item.default == "" else f" (default: {item.default})"
        text = f"{item.metadata['help']}{default}".replace("%", "%%")
        flag = made[name].add_argument(
            f"--{item.name}",
            type=kind,
            default=argparse.SUPPRESS,
            metavar=_metavar(item),
            help=argparse.SUPPRESS if short and not item.metadata["main"] else text,
        )
        flag.full_help = text


class _HelpAll(argparse.Action):
    """Shows what short help leaves out, and the sentence under each heading."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        for group in parser._action_groups:
            group.description = getattr(group, "sentence", group.description)
        for action in parser._actions:
            action.help = getattr(action, "full_help", action.help)
        parser.print_help()
        parser.exit()


def build(config: type[Config], given: Mapping[str, Any]) -> Config:
    """A config from the options given; the others keep their defaults, and names of other configs are passed over."""
    return config(**{item.name: given[item.name] for item in fields(config) if item.name in given})


def to_argv(config: Any, leave_out: Iterable[str] = ()) -> list[str]:
    """The flags that give this config, those at their defaults left out."""
    argv = []
    for item in fields(config):
        value = getattr(config, item.name)
        if value != item.default and item.name not in leave_out:
            # a text that begins with a hyphen would be taken for a flag of its own
            starts_like_a_flag = isinstance(value, str) and value.startswith("-")
            argv += [f"--{item.name}={value}"] if starts_like_a_flag else [f"--{item.name}", str(value)]
    return argv


def as_dict(config: Any) -> dict[str, Any]:
    """Every option with its value."""
    return asdict(config)


def _metavar(item: Field) -> str:
    if item.metadata["choices"] is not None:
        return "{" + ",".join(map(str, item.metadata["choices"])) + "}"
    return {int: "N", float: "X"}.get(type(item.default)) or item.name.rsplit("_", 1)[-1].upper()
