"""`python -m flaretune serve`: the model server."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from typing import Any

from flaretune.cli.console import add_command
from flaretune.config.flags import add_flags
from flaretune.config.groups import GROUPS
from flaretune.config.model_server import ServiceConfig
from flaretune.config.old_names import renew
from flaretune.config.options import build


def add_serve(commands: Any) -> None:
    """Add the command."""
    help = "load a model once for all FedBPT clients on this machine, which use it with --model_server"
    add_flags(add_command(commands, "serve", serve, help), ServiceConfig, groups=GROUPS)


def serve(args: argparse.Namespace) -> None:
    """Run the model server until it is told to stop; ends the process."""
    from flaretune.model_server.connection import TOKEN_VARIABLE, token_of_environment
    from flaretune.model_server.server import serve as run_server

    options, sentences = renew(vars(args), ServiceConfig)
    for sentence in sentences:
        print(f"warning: {sentence}", file=sys.stderr)
    config = build(ServiceConfig, options)
    token = token_of_environment()
    if not token:
        token = secrets.token_urlsafe(24)
        print(f"clients need this in their environment: {TOKEN_VARIABLE}={token}", flush=True)
    status = run_server(config, token)
    sys.stdout.flush()
    os._exit(status)  # LitServe's HTTP thread would keep the process
