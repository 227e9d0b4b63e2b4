"""Corrections of NVFlare 2.9's simulator, without which a job now and then waits for a client that never comes.

The threads that start the clients' processes write each client's name into one dictionary and then send that
(`SimulatorClientRunner.do_one_task`). Two that do so at the same time send the same name twice: one client works for
both, and fails in the other's folder. Seen in three of eight simulator runs in a row.

Such a thread also looks for a free port, by listening at one for a moment, and connects to it until the process that it
starts answers there. A process that another thread starts in that moment holds a copy of what listens until it has
become another program, and on a busy machine the connection is to that copy, which means to nobody. Seen in 8 of 840
starts of /bin/true by seven threads, on two cores that had four other processes to run.

That process listens only once it has imported everything, seconds later. Where the kernel has given the port to
somebody else by then, it dies of "Address already in use", and the job waits an hour for its client; seen once in a run
of all tests by two processes. So the port is none of those that the kernel gives (`host.free_port`).

The server of a simulated job runs in the simulator's process, from where both can be set right.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

from flaretune.host import free_port, replace_unprintable, write_nowhere

RUNNER = "nvflare.private.fed.app.simulator.simulator_runner"


def give_each_thread_its_own_names() -> None:
    """Let every thread of the simulator, if this is its process, see a copy of the dictionary that is its own."""
    runner = getattr(sys.modules.get(RUNNER), "SimulatorClientRunner", None)
    if runner is None or isinstance(vars(runner).get("build_ctx"), property):
        return
    own = threading.local()

    def read(self: Any) -> dict[str, Any]:
        if not hasattr(own, "names"):
            own.names = dict(vars(self)["build_ctx"])
        return own.names

    def write(self: Any, names: dict[str, Any]) -> None:
        vars(self)["build_ctx"] = names

    runner.build_ctx = property(read, write)


def find_ports_without_listening() -> None:
    """Let the simulator, if this is its process, look for free ports in such a way that none can be connected to."""
    runner = sys.modules.get(RUNNER)
    if hasattr(runner, "get_open_ports"):
        runner.get_open_ports = lambda number: [free_port() for _ in range(number)]  # it takes one at a time


def let_readers_leave() -> None:
    """Let who reads a job's progress, such as `head`, leave; logging would tell of an error at every line after.

    Nor does it for characters that stdout lacks.
    """
    replace_unprintable()
    for handler in logging.getLogger("flaretune").handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.handleError = _unless_nobody_reads(handler.handleError)


def _unless_nobody_reads(tell: Callable[[logging.LogRecord], None]) -> Callable[[logging.LogRecord], None]:
    def handle(record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            write_nowhere()
        else:
            tell(record)

    return handle
