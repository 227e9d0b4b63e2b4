"""The options of `jobs/fedbpt_job.py` and `jobs/lpfl_job.py` on where a job runs, and what is kept of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from flaretune.config.options import check_fields, option
from flaretune.errors import UserError

CODE = CARRIED, INSTALLED = "carried", "installed"  # where server and sites have flaretune from


def check_name(what: str, name: str) -> None:
    """Check the name of a job or a site, which becomes that of a folder.

    Raises:
        UserError: it could be a path.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name, re.ASCII):
        raise UserError(f"{what} {name!r}: must be a name of letters, digits, and - . _ between them")


@dataclass(frozen=True)
class JobConfig:
    """Where a job runs, and what is kept of it."""

    name: str = option("", "name of the job; default the method's", group="job")
    env: str = option(
        "sim",
        "simulator on this machine, a proof-of-concept federation on it, or a real one",
        group="job",
        main=True,
        choices=("sim", "poc", "prod"),
    )
    n_clients: int = option(
        2, "simulator, poc: number of clients, site-1 ... site-N", group="job", main=True, at_least=1
    )
    clients: str = option("", "simulator, poc: names of the clients instead, separated by commas", group="job")
    threads: int = option(0, "simulator: clients that run at a time; 0: all", group="job", at_least=0)
    gpu: str = option("", "simulator: GPUs for the clients, e.g. 0,1", group="job")
    sites: str = option("", "a TOML file with a table of options for each site that has its own", group="job")
    startup_kit: str = option("", "prod: folder of the administrator's startup kit", group="job")
    share_lm: int = option(
        0,
        "FedBPT in the simulator or poc: 1 loads the model once, in a service that all clients ask",
        group="job",
        choices=(0, 1),
    )
    code: str = option(
        CARRIED,
        "the job carries flaretune's code, or is configuration alone, for a real federation that has it installed",
        group="job",
        choices=CODE,
    )
    tracking: str = option(
        "none",
        "keep the numbers in MLflow or Weights & Biases too",
        group="job",
        choices=("none", "mlflow", "wandb"),
    )
    tracking_uri: str = option("", "of the tracker's server; default: files in the results", group="job")
    output: str = option("", "folder for results; default runs/NAME", group="job", main=True)
    timeout: float = option(0.0, "poc, prod: seconds to wait for the job's end; 0: no limit", group="job", at_least=0)
    verbose: int = option(0, "1: show NVFlare's own log lines too", group="job", choices=(0, 1))

    def __post_init__(self):
        check_fields(self)
        for flag, name in (("--name", self.name), *(("--clients", n.strip()) for n in self.clients.split(","))):
            if name:
                check_name(flag, name)
        if self.env == "prod" and not Path(self.startup_kit or "?").is_dir():
            found = f"{self.startup_kit} is not there" if self.startup_kit else "none was given"
            raise UserError(f"--env prod needs --startup_kit, the folder of an administrator's startup kit; {found}")
