"""Whole jobs in one process, without NVFlare, and the files that their numbers are kept in."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flaretune.cli.jobs import read_preset
from flaretune.config.client import ClientConfig
from flaretune.config.options import build
from flaretune.config.server import ServerConfig
from flaretune.engine.results import read_summary
from flaretune.engine.rounds import Job
from flaretune.engine.transport import InProcessTransport
from flaretune.engine.worker import Worker
from flaretune.methods.base import Method


def client_names(count: int) -> list[str]:
    """As the simulator names them."""
    return [f"site-{i + 1}" for i in range(count)]


def summary_of(method: Method, config: ClientConfig, server: ServerConfig, clients: Sequence[str]) -> dict[str, Any]:
    """Run a job whose clients have the same options; returns its summary.json."""
    with tempfile.TemporaryDirectory(prefix="flaretune-in-process-") as name:
        folder = Path(name)
        workers = {client: Worker(method, config, client, folder / "states", folder / "runs") for client in clients}
        Job(method, server, InProcessTransport(workers), folder / "results").run()
        return read_summary(folder / "results")


def summary_of_preset(method: Method, preset: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Run a job with a method's preset; options in `own` replace the preset's. Returns its summary.json."""
    values = {**read_preset(method, preset), **own}
    config, server = (
        build(kind, {name: value for name, value in values.items() if name in kind.model_fields})
        for kind in (method.client_config, method.server_config)
    )
    return summary_of(method, config, server, client_names(values["n_clients"]))


def kept(file: Path | None) -> list[dict[str, Any]]:
    """The runs that a file holds; none where there is no file yet."""
    return json.loads(file.read_text(encoding="utf-8"))["runs"] if file and file.is_file() else []
