"""Commands in real processes, for the slow tests of jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]


def environment_in(folder: Path) -> dict[str, str]:
    """An environment with this Python first in PATH and a home in `folder`."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "NVFLARE_POC_WORKSPACE": str(folder / "poc"),
    }


def command_in(folder: Path):
    """A function that runs a command in the repository; see `environment_in`."""
    environment = environment_in(folder)

    def command(*argv: Any, timeout: float = 900) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(a) for a in argv], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=timeout
        )

    return command


def read_summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def create_from_template(run, method: str, job: Path, app_config: str, **server: Any) -> None:
    """The published example's two commands, for another job folder."""
    configured = run("nvflare", "config", "-jt", "./job_templates")
    assert configured.returncode == 0, configured.stdout + configured.stderr
    created = run(
        *f"nvflare job create -force -j {job} -w {method} -sd ./src".split(),
        *["-f", "app/config/config_fed_client.conf", f"app_script={method}_train.py"],
        f"app_config={app_config}",
        *["-f", "app/config/config_fed_server.conf"],
        *(f"{key}={value}" for key, value in server.items()),
    )
    assert created.returncode == 0, created.stdout + created.stderr
