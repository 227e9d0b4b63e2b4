"""The options of the job scripts on where a job runs, and what is kept of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from flaretune.config.groups import JOB
from flaretune.config.options import Options, option
from flaretune.errors import UserError

CODE = CARRIED, INSTALLED = "carried", "installed"  # where server and clients have flaretune from


def check_name(what: str, name: str) -> None:
    """Check the name of a job, which becomes that of a folder.

    Raises:
        UserError: it could be a path.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name, re.ASCII):
        raise UserError(f"{what} {name!r}: must be a name of letters, digits, and - . _ between them")


def check_clients(what: str, names: Sequence[str]) -> None:
    """Check the names of a job's clients.

    Raises:
        UserError: NVFlare cannot provision one, keeps it to itself, or cannot tell two apart.
    """
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name, re.ASCII):  # a dot parts names of NVFlare's cells
            raise UserError(f"{what} {name!r}: must be a name of letters, digits, and - _ between them, without a dot")
        if name.lower() == "server":
            raise UserError(f"{what} {name}: this is the server's name; give the client another")
        alike = [other for other in names if other.lower() == name.lower()]
        if len(alike) > 1:
            raise UserError(f"{what} {', '.join(alike)}: clients need names that differ in more than case")


class JobConfig(Options):
    """Where a job runs, and what is kept of it."""

    name: str = option("", "name of the job; default the method's", group=JOB)
    env: Literal["sim", "poc", "prod"] = option(
        "sim", "simulator on this machine, a proof-of-concept federation on it, or a real one", group=JOB, main=True
    )
    n_clients: int = option(2, "simulator, poc: number of clients, site-1 ... site-N", group=JOB, main=True, at_least=1)
    clients: str = option("", "simulator, poc: names of the clients instead, separated by commas", group=JOB)
    threads: int = option(0, "simulator: clients that run at a time; 0: all", group=JOB, at_least=0)
    gpu: str = option("", "simulator: GPUs for the clients, e.g. 0,1", group=JOB)
    per_client: str = option(
        "", "a TOML file with a table for each client, by its name, of the options that it has of its own", group=JOB
    )
    startup_kit: str = option("", "prod: folder of the administrator's startup kit", group=JOB)
    share_model: Literal[0, 1] = option(
        0, "FedBPT in the simulator or poc: 1 loads the model once, in a model server that all clients use", group=JOB
    )
    code: Literal["carried", "installed"] = option(
        CARRIED,
        "the job carries flaretune's code, or is configuration alone, for a real federation that has it installed",
        group=JOB,
    )
    tracking: str = option(
        "none",
        "keep the numbers in mlflow or wandb (Weights & Biases) too, in files among the results, or at a server: "
        "mlflow=URI",
        group=JOB,
    )
    output: str = option("", "folder for results; default runs/NAME", group=JOB, main=True)

    @property
    def client_names(self) -> list[str]:
        """Of --clients; none where their number is given instead."""
        return [name.strip() for name in self.clients.split(",") if name.strip()]

    @property
    def tracker(self) -> tuple[str, str]:
        """The tracker, and the address of its server or "" for files."""
        name, _, uri = self.tracking.partition("=")
        return name, uri

    def clashes(self) -> Iterator[str]:
        try:
            if self.name:
                check_name("--name", self.name)
            check_clients("--clients", self.client_names)
        except UserError as error:
            yield str(error)
        if not re.fullmatch(r"none|(mlflow|wandb)(=\S+)?", self.tracking):
            yield f"--tracking {self.tracking}: must be one of none, mlflow, wandb, mlflow=URI, wandb=URI"
        if self.env == "prod" and not Path(self.startup_kit or "?").is_dir():
            found = f"{self.startup_kit} is not there" if self.startup_kit else "none was given"
            yield f"--env prod needs --startup_kit, the folder of an administrator's startup kit; {found}"
