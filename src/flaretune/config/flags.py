"""Options as flags of a command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from flaretune.config.old_names import old_names, renew
from flaretune.config.options import Option, Options, not_default, options_of, problems
from flaretune.errors import near


def add_flags(
    parser: argparse.ArgumentParser,
    *configs: type[Options],
    groups: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
    short: bool = False,
) -> None:
    """Add a flag for every option of the configs, in their groups, without defaults (see `build`).

    A value that is not of the option's type stays a text, for the config to refuse with all others. Without `only`,
    old names are taken too (see `read_flags`).

    Args:
        groups: sentence that stands under the heading of a group, by its name, in the order in which groups come.
        only: names of the options to add; None for all.
        short: let --help show only the main options, and add a flag --help_all that shows all.
    """
    if short:
        parser.add_argument(
            "--help_all", action=_HelpAll, nargs=0, default=argparse.SUPPRESS, help="show all options and exit"
        )
    headings = groups or {}
    places = {name: place for place, name in enumerate(headings)}
    made: dict[str, Any] = {}
    found = [item for config in configs for item in options_of(config) if only is None or item.name in only]
    for item in sorted(found, key=lambda item: places.get(item.group, 0)):
        if item.group not in made:
            made[item.group] = parser.add_argument_group(item.group, None if short else headings.get(item.group))
            made[item.group].sentence = headings.get(item.group)
        default = "" if item.default == "" else f" (default: {item.default})"
        text = f"{item.help}{default}".replace("%", "%%")
        flag = made[item.group].add_argument(
            f"--{item.name}",
            type=partial(_read, item.kind),
            default=argparse.SUPPRESS,
            metavar=_metavar(item),
            help=argparse.SUPPRESS if short and not item.main else text,
        )
        flag.full_help = text
    if only is None:
        kinds = {item.name: item.kind for item in found}
        for old, new in old_names(*configs).items():
            parser.add_argument(
                f"--{old}",
                type=partial(_read, kinds.get(new, str)),
                nargs="?",
                const="",
                default=argparse.SUPPRESS,
                help=argparse.SUPPRESS,
            )


def read_flags(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, *configs: type[Options]
) -> tuple[dict[str, Any], list[str]]:
    """The options that a command line gives, by their names of today; exits with status 2 at an unknown flag.

    Returns:
        What was given, and a sentence for every old name.

    Raises:
        UserError: an old option asks for what is not there any more.
    """
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        known = [flag for action in parser._actions for flag in action.option_strings]
        hints = [f"{text}: {near(text.split('=')[0], known, '')}" for text in unknown if text.startswith("--")]
        names = {item.name for config in configs for item in options_of(config)}
        given = {name: value for name, value in vars(args).items() if name in names}
        also = [f"--{name} {said}" for c in configs for name, said in problems(c, _of(c, given))]
        hints = [hint for hint in hints if not hint.endswith(": ")]
        parser.error("; ".join([f"unrecognized arguments: {' '.join(unknown)}", *hints, *also]))
    return renew(vars(args), *configs)


def to_argv(config: Options) -> list[str]:
    """The flags that give this config, those at their defaults left out."""
    argv = []
    for name, value in not_default(config).items():
        # a text that begins with a hyphen would be taken for a flag of its own
        starts_like_a_flag = isinstance(value, str) and value.startswith("-")
        argv += [f"--{name}={value}"] if starts_like_a_flag else [f"--{name}", str(value)]
    return argv


class _HelpAll(argparse.Action):
    """Shows what short help leaves out, and the sentence under each heading."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        for group in parser._action_groups:
            group.description = getattr(group, "sentence", group.description)
        for action in parser._actions:
            action.help = getattr(action, "full_help", action.help)
        parser.print_help()
        parser.exit()


def _of(config: type[Options], given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in config.model_fields}


def _read(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        return text


def _metavar(item: Option) -> str:
    if item.choices:
        return "{" + ",".join(map(str, item.choices)) + "}"
    return {int: "N", float: "X"}.get(item.kind) or item.name.rsplit("_", 1)[-1].upper()
