"""A job on this machine that is told to stop, and the end of all processes that it has started."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from flaretune.host import variable

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # a service manager's, Ctrl-C, the end of the terminal
MARK = "FLARETUNE_JOB"  # variable in the environment of all processes of a job; its value is the job's alone


class Stopped(BaseException):
    """The job was told to stop.

    Not a KeyboardInterrupt: that NVFlare catches itself, kills all children of this process, and goes on.

    Args:
        more: what else there is to say, as the end of a sentence.
    """

    def __init__(self, number: int, more: str = ""):
        super().__init__(f"stopped by {signal.Signals(number).name}{more}")
        self.number = number

    @property
    def status(self) -> int:
        """The exit status, as shells have it."""
        return 128 + self.number


@contextmanager
def stoppable() -> Iterator[None]:
    """While this lasts, the first signal raises `Stopped`, and others wait until what follows from it is done."""

    def stop(number: int, _frame: Any) -> None:
        for one in before:
            signal.signal(one, lambda *_: None)  # unlike SIG_IGN not inherited by processes that stop others
        raise Stopped(number)

    # who started this may want it to pass over a signal, as nohup does
    before = {one: signal.getsignal(one) for one in SIGNALS if signal.getsignal(one) is not signal.SIG_IGN}
    for one in before:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def ending_what_it_starts() -> Iterator[None]:
    """Let no process that is started in this outlive an exception in it.

    NVFlare's processes leave session and parent, but keep their environment.
    """
    value = secrets.token_hex(8)
    with variable(MARK, value):
        try:
            yield
        except BaseException:
            _kill_all(value)
            raise


def members(mark: str, value: str) -> list[psutil.Process]:
    """Processes but this one with a variable of that value in their environment, those started first coming first."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(mark) == value:
                found.append((process.create_time(), process.pid, process))
    return [process for *_, process in sorted(found, key=lambda entry: entry[:2])]


def _kill_all(value: str) -> None:
    """At once, and the server before its sites: it must not finish a round with those that still live."""
    while left := members(MARK, value):  # again: some may have started others meanwhile
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1)
