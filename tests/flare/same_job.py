"""The same job in the test's own process, for the numbers that one of real processes must have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from flaretune.config.client_flags import read_client_config
from flaretune.methods.registry import METHODS
from tests.engine.in_process import run_job


def run_here(method: str, flags: Sequence[str], clients: Sequence[str], folder: Path, **more) -> Path:
    """Run a job; returns the folder of its results.

    Args:
        method: fedbpt or lpfl.
        flags: of the clients.
        clients: their names.
        folder: of the results; must not exist.
        more: see `run_job`.
    """
    config, _ = read_client_config(METHODS[method].client_config, flags)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as processes of these tests have
    try:
        told = run_job(METHODS[method], dict.fromkeys(clients, config), folder, **more)
    finally:
        torch.set_num_threads(threads)
    assert (told.failure, told.client_failures) == ("", {})
    return folder
