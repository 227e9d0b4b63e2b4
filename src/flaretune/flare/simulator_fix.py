"""A correction of NVFlare 2.9's simulator, without which a client now and then runs under another's name.

The threads that start the clients' processes write each client's name into one dictionary and then send that
(`SimulatorClientRunner.do_one_task`). Two that do so at the same time send the same name twice: one client works for
both, fails in the other's folder, and the job waits for a client that never comes. Seen in three of eight simulator
runs in a row. The server of a simulated job runs in the simulator's process, from where this can be set right.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

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
