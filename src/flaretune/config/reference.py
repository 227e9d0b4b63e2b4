"""The reference of all options, in Markdown, made from their definitions."""

from __future__ import annotations

from collections.abc import Sequence

from flaretune.config.client import ClientConfig
from flaretune.config.groups import GROUPS
from flaretune.config.job import JobConfig
from flaretune.config.model_server import ServiceConfig
from flaretune.config.old_names import GONE, JOINED, RENAMED, RENAMED_VALUES
from flaretune.config.options import Option, options_of
from flaretune.config.server import ServerConfig

INTRODUCTION = """\
# Options

Made from the definitions in `src/flaretune/config/` and `src/flaretune/methods/*/config.py`; do not edit it.

Every option is a flag of the job scripts (`--k_shot 16`), a key of presets and of files of options by client
(`k_shot = 16`), and an argument of the configs in Python (`k_shot=16`). Those of the server are keys of
`config_fed_server.conf` too; those of the clients are flags in `app_config`, and a key in a client's own
`local/flaretune.toml` where they have a †. The last column says who takes an option: FedBPT, LP-FL, every method, the
job scripts, or the model server (`python -m flaretune serve`).
"""

# Whose options those in `old_names.GONE` were.
OF = {
    "ClientConfig": "every method",
    "FedBPTConfig": "FedBPT",
    "FedBPTServerConfig": "FedBPT, in `config_fed_server.conf`",
    "JobConfig": "job scripts",
    "LPFLConfig": "LP-FL",
    "ServiceConfig": "model server",
}


def options_markdown(methods: Sequence[tuple[type[ClientConfig], type[ServerConfig]]]) -> str:
    """A table for each group: option, default, values, what it does, and who takes it; then old names."""
    taken: dict[tuple[str, str], list[str]] = {}  # by name and help: a name that stands for two things has two lines
    items: dict[tuple[str, str], Option] = {}
    own: set[str] = set()
    kinds = [("job", JobConfig), *((c.method, k) for c, server in methods for k in (c, server))]
    for who, config in (*kinds, ("model server", ServiceConfig)):
        for item in options_of(config):
            items.setdefault((item.name, item.help), item)
            taken.setdefault((item.name, item.help), []).append(who)
    for client, _ in methods:
        own |= set(client.client_options)
    names = [client.method for client, _ in methods]
    parts = [INTRODUCTION]
    for group, sentence in GROUPS.items():
        rows = [
            f"| `{item.name}`{' †' if item.name in own else ''} | {_code(item.default)} | {_values(item)} | "
            f"{_cell(item.help)} | {_who(taken[key], names)} |"
            for key, item in items.items()
            if item.group == group
        ]
        head = "| option | default | values | what it does | taken by |\n| --- | --- | --- | --- | --- |"
        parts.append("\n".join([f"## {group[0].upper()}{group[1:]}\n\n{sentence}\n", head, *rows, ""]))
    return "\n".join([*parts, _old()])


def _old() -> str:
    now = {old: f"`{new}`" for old, new in RENAMED.items()}
    now |= {old: f"`{new}`" for new, (names, _) in JOINED.items() for old in names}
    now |= {f"{name} = {old}": f"`{name} = {new}`" for (name, old), new in RENAMED_VALUES.items()}
    gone = [(name, OF[config], sentence) for config in GONE for name, (_, sentence) in GONE[config].items()]
    head = "## Old names\n\nTaken for one release, with a warning.\n\n| old | now |\n| --- | --- |"
    rows = [f"| `{old}` | {new} |" for old, new in now.items()]
    more = (
        "\n## Options without a meaning\n\nOf the published FedBPT script, and deleted ones of ours. They are answered "
        "by these sentences, and refused where they ask for what is not there.\n\n"
        "| option | of | sentence |\n| --- | --- | --- |"
    )
    return "\n".join([head, *rows, more, *(f"| `{name}` | {of} | {_cell(said)} |" for name, of, said in gone), ""])


def _values(item: Option) -> str:
    if item.choices:
        return ", ".join(_code(choice) for choice in item.choices)
    kind = {int: "whole number", float: "number", str: "text"}[item.kind]
    limits = (("at least", item.at_least), ("above", item.above), ("at most", item.at_most))
    return ", ".join([kind, *(f"{word} {value}" for word, value in limits if value is not None)])


def _who(taken: list[str], methods: list[str]) -> str:
    both = [name for name in methods if name in taken]
    rest = [name for name in taken if name not in methods]
    return ", ".join([*(["every method"] if len(both) == len(methods) else both), *rest])


def _code(value: object) -> str:
    return f"`{value}`" if value != "" else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
