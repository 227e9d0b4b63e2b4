"""What starts a client's script."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor

import flaretune
from flaretune.errors import UserError
from flaretune.methods.registry import find_method

OPTIONS = "config/client_options.json"  # seen from a script's working folder
LAUNCH_TIMEOUT = 600.0  # seconds that a script may take until it asks for its first task


class ClientExecutor(ClientAPIExecutor):
    """Runs one of flaretune's own client scripts, with the options that the job has for it.

    NVFlare's `ClientAPIExecutor` runs whatever command a job holds, so that a client which allows that class allows any
    program. A client that allows this one allows flaretune's scripts with options.

    Raises:
        UserError: there is no such method, or its script is not installed.
    """

    def __init__(self, method: str):
        # -E: of PYTHONPATH, where NVFlare puts the job's folders, no module is taken
        command = [sys.executable, "-E", "-u", str(script_file(find_method(method).client_script))]
        super().__init__(**script_arguments(command))
        self.method = method  # an export finds what has the name of an argument


def script_arguments(command: list[str]) -> dict[str, Any]:
    """Arguments of NVFlare's executor for a client's script.

    Options are in a file: in arguments, NVFlare 2.9 takes what stands in braces for names of variables.
    """
    return {
        "execution_mode": "external_process",
        "command": [*command, "--config", OPTIONS],
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
