"""Commands of a federation on this machine, and the end of all that they started."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from flaretune.errors import UserError
from flaretune.flare import stopping

MARK = "FLARETUNE_FEDERATION"  # variable in the environment of all processes of a federation: the folder it runs in


def run_commands(
    commands: str, folder: Path, environment: Mapping[str, str], log: IO[bytes], seconds: float
) -> dict[str, str]:
    """Run commands in bash until the first that fails.

    Args:
        commands: for bash.
        folder: that it starts in.
        environment: of it.
        log: gets what the commands say; an open file.
        seconds: that it may take.

    Returns:
        The environment as the commands left it, their own variables among it.

    Raises:
        UserError: a command failed, or `seconds` were over.
    """
    kept = folder / ".environment"
    script = f"set -euo pipefail -o allexport\n{commands}\nenv -0 > '{kept}'\n"
    # a session of its own: a Ctrl-C at the terminal is for the caller, who ends the processes in order
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"it was not done after {seconds:.0f} s") from error
    if status:
        raise UserError(f"it ended with status {status}")
    entries = kept.read_bytes().decode(errors="surrogateescape").split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


def members(folder: Path) -> list[psutil.Process]:
    """The processes of the federation in `folder`."""
    return stopping.members(MARK, str(folder))


def wait_for_end(folder: Path, seconds: float) -> None:
    """Wait until no process of the federation is left.

    Raises:
        UserError: some are, after `seconds`.
    """
    until = time.monotonic() + seconds
    while left := members(folder):
        if time.monotonic() > until:
            raise UserError(f"{len(left)} of its processes still ran {seconds:.0f} s after the shutdown")
        time.sleep(0.2)


def end_all(folder: Path, patience: float = 5.0) -> None:
    """End what still runs of the federation, by force after `patience` seconds."""
    by_force_from = time.monotonic() + patience
    while left := members(folder):  # again: NVFlare's scripts start anew what ends
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill() if time.monotonic() > by_force_from else process.terminate()
        psutil.wait_procs(left, timeout=1)
