"""What starts a client's script."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor

import flaretune
from flaretune.errors import UserError
from flaretune.methods.registry import find_method

LAUNCH_TIMEOUT = 600.0  # seconds that a script may take until it asks for its first task


class ClientExecutor(ClientAPIExecutor):
    """Runs one of flaretune's own client scripts, with its options as one JSON value.

    NVFlare's `ClientAPIExecutor` runs whatever command a job holds, so that a client which allows that class allows any
    program. A client that allows this one allows flaretune's scripts with options.

    Args:
        method: name of the method.
        options: of its `client_config`; those at their defaults may be left out.

    Raises:
        UserError: there is no such method, or its script is not installed.
    """

    def __init__(self, method: str, options: Mapping[str, Any] | None = None):
        # -E: of PYTHONPATH, where NVFlare puts the job's folders, no module is taken
        command = [sys.executable, "-E", "-u", str(script_file(find_method(method).client_script))]
        super().__init__(**script_arguments(command, options or {}))
        self.method, self.options = method, dict(options or {})  # an export finds what has the name of an argument


def script_arguments(command: list[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of NVFlare's executor for a client's script, with its options as one JSON value."""
    return {
        "execution_mode": "external_process",
        "command": [*command, "--config", json.dumps(dict(options))],
        "launch_timeout": LAUNCH_TIMEOUT,
        "server_expected_format": "raw",
    }


def script_file(name: str) -> Path:
    """A client's script, which is installed beside the package.

    Raises:
        UserError: it is not there.
    """
    script = Path(flaretune.__file__).parent.parent / name
    if not script.is_file():
        raise UserError(f"{script} is missing: install flaretune again")
    return script
