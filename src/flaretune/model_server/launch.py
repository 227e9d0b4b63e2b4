"""Starting a model server beside a job, and stopping it with the job."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flaretune.config.flags import to_argv
from flaretune.config.model_server import LOOPBACK, PARENT_VARIABLE, ServiceConfig
from flaretune.config.options import changed
from flaretune.errors import UserError
from flaretune.host import free_port, variable
from flaretune.model_server.client import is_ready
from flaretune.model_server.connection import TOKEN_VARIABLE

START_SECONDS = 1800  # a large model from a slow disk
STOP_SECONDS = 10


@contextmanager
def running_model_server(config: ServiceConfig, log: Path) -> Iterator[str]:
    """Run a model server on this machine while the context lasts; processes that are started in it find its token.

    Args:
        config: its options; `port` is chosen here.

    Yields:
        Its address, for ``--model_server``.

    Raises:
        UserError: it does not start; with the sentence that it left.
    """
    config = changed(config, host=LOOPBACK, port=free_port())
    token, url = secrets.token_urlsafe(24), f"http://{LOOPBACK}:{config.port}"
    log.parent.mkdir(parents=True, exist_ok=True)
    with variable(TOKEN_VARIABLE, token):
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "flaretune", "serve", *to_argv(config)],
                env={**os.environ, PARENT_VARIABLE: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _wait_until_ready(process, url, token, log)
            yield url
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            with suppress(ProcessLookupError):  # its workers, if it could not end them itself
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_ready(process: subprocess.Popen, url: str, token: str, log: Path) -> None:
    started = time.monotonic()
    while not is_ready(url, token):
        if process.poll() is not None or time.monotonic() - started > START_SECONDS:
            said = re.findall(r"^error: (.*)", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
            reason = said[0] if said else "it gave no reason"
            raise UserError(f"the model server did not start: {reason} (its log: {log})")
        time.sleep(0.1)
