"""`python -m flaretune options`."""

from __future__ import annotations

import argparse
from typing import Any

from flaretune.cli.console import add_command


def add_options(commands: Any) -> None:
    """Add the command."""
    add_command(commands, "options", options, "print every option with its default and its meaning, as Markdown")


def options(args: argparse.Namespace) -> None:
    """Print the reference of all options."""
    from flaretune.config.reference import options_markdown
    from flaretune.methods.registry import METHODS

    print(options_markdown([(method.client_config, method.server_config) for method in METHODS.values()]), end="")
