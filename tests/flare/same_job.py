"""The same job in the test's own process, for the numbers that one of real processes must have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from flaretune.flare.fedbpt_client import FedBPTTasks
from flaretune.flare.fedbpt_controller import FedBPTController
from flaretune.flare.lpfl_client import LPFLTasks
from flaretune.flare.lpfl_controller import LPFLController
from flaretune.flare.site_script import HasHandlers

from flaretune.config.client_flags import read_client_config
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.lpfl.config import LPFLConfig
from tests.flare.federation import federate

METHODS = {
    "fedbpt": (FedBPTConfig, FedBPTTasks, FedBPTController),
    "lpfl": (LPFLConfig, LPFLTasks, LPFLController),
}


class StartedAnew:
    """A site whose process is started anew for each task."""

    def __init__(self, make):
        self._make = make

    def handlers(self):
        return self._make().handlers()


def run_here(
    method: str,
    flags: Sequence[str],
    sites: Sequence[str],
    folder: Path,
    monkeypatch,
    *,
    anew: bool = False,
    **server,
) -> Path:
    """Run a job; returns the folder of its results. Needs the fixture ``as_in_a_job``.

    Args:
        method: fedbpt or lpfl.
        flags: of the sites.
        sites: their names.
        folder: that everything lies in; must not exist.
        monkeypatch: pytest's.
        anew: start the sites' processes anew for each task.
        server: options of the controller.
    """
    options, tasks, controller = METHODS[method]
    config, _ = read_client_config(options, flags)
    (folder / "job").mkdir(parents=True)
    monkeypatch.chdir(folder / "job")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as processes of these tests have
    try:
        made: dict[str, HasHandlers] = {
            site: StartedAnew(lambda: tasks(config)) if anew else tasks(config) for site in sites
        }
        said = federate(controller(**server), made, folder / "results", monkeypatch)
    finally:
        torch.set_num_threads(threads)
    assert said.panics == []
    return folder / "results"
