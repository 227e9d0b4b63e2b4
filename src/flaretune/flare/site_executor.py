"""What starts a site's script where flaretune is installed, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor

import flaretune
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.errors import UserError

SCRIPTS = (FedBPTConfig.script(), LPFLConfig.script())
LAUNCH_TIMEOUT = 600.0  # seconds that a script may take until it asks for its first task


class SiteExecutor(ClientAPIExecutor):
    """Runs one of flaretune's own installed scripts.

    NVFlare's `ClientAPIExecutor` runs whatever command a job holds, so that a site which allows that class allows any
    program. A site that allows this one allows flaretune's two scripts with options.

    Args:
        script: file name of the script.
        options: its flags.

    Raises:
        UserError: flaretune has no such script, or it is not installed.
    """

    def __init__(self, script: str, options: Sequence[str] = ()):
        if script not in SCRIPTS:
            raise UserError(f"script {script!r}: must be one of {', '.join(SCRIPTS)}")
        # -E: of PYTHONPATH, where NVFlare puts the job's folders, no module is taken
        command = [sys.executable, "-E", "-u", str(script_file(script)), *options]
        super().__init__(
            execution_mode="external_process",
            command=command,
            launch_timeout=LAUNCH_TIMEOUT,
            server_expected_format="raw",
        )
        self.script = script  # an export keeps what has the name of an argument
        self.options = list(options)


def script_file(name: str) -> Path:
    """A site's script, which is installed beside the package.

    Raises:
        UserError: it is not there.
    """
    script = Path(flaretune.__file__).parent.parent / name
    if not script.is_file():
        raise UserError(f"{script} is missing: install flaretune again")
    return script
