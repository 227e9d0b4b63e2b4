"""Jobs in the simulator, and the memory of all their processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from flaretune.engine.results import read_summary
from flaretune.errors import UserError

SAMPLE_SECONDS = 0.5
COMMAND = "import sys; from flaretune.cli.jobs import main; sys.exit(main('fedbpt'))"


@dataclass(frozen=True)
class JobRun:
    """A finished job.

    Attributes:
        summary: contents of its summary.json.
        peak_mb: the most memory that all its processes took at a time, in MiB: proportional set sizes, in which
            pages that several processes share count once.
    """

    summary: dict[str, Any]
    peak_mb: float


def run_fedbpt(options: Mapping[str, Any]) -> JobRun:
    """Run a FedBPT job in the simulator and watch its memory.

    Args:
        options: of the job script.

    Raises:
        UserError: the job failed; with what it said.
    """
    flags = [f"--{name}={value}" for name, value in options.items()]
    with tempfile.TemporaryDirectory(prefix="flaretune-bench-") as folder:
        log = Path(folder) / "log.txt"
        with log.open("wb") as file:
            process = psutil.Popen(
                [sys.executable, "-c", COMMAND, *flags, f"--output={folder}/out"],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        watch = _Watch(process)
        watch.start()
        status = process.wait()
        watch.stop()
        if status:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise UserError(f"the job ended with status {status}: {' '.join(said[-3:])}")
        return JobRun(read_summary(Path(folder) / "out"), round(watch.peak / 2**20, 1))


class _Watch(threading.Thread):
    """Looks at the memory of a process and all that it started, again and again."""

    def __init__(self, process: psutil.Process):
        super().__init__(daemon=True)
        self._process = process
        self._stopped = threading.Event()
        self.peak = 0

    def run(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, _memory(self._process))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _memory(process: psutil.Process) -> int:
    """Proportional set sizes of a process and its descendants, in bytes."""
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            total += member.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):  # it has ended meanwhile
            continue
    return total
