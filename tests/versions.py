"""Run tests in environments of their own: with the oldest and the newest supported libraries, and without torch.

    python tests/versions.py oldest|newest|light [PYTEST ARGUMENT …]

Oldest are the lower bounds in pyproject.toml, of every dependency; newest is `flaretune.versions.NEWEST`, and of all
else what pip finds to be the newest; light is requirements-light.txt. Without arguments, the fast tests run, and in the
light environment those that it is for. An environment is kept in build/versions/ until its versions change.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

from flaretune.config.toml import tomllib
from flaretune.versions import NEWEST

REPOSITORY = Path(__file__).parents[1]
FOLDER = REPOSITORY / "build" / "versions"
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "nbformat")  # of requirements-dev.txt, what the fast tests need
FAST = ("-m", "not slow", "-n", "2", "--dist", "loadfile")
# the last has NVFlare's simulator, with a server and clients that need no model
LIGHT = ("tests/aggregation", "tests/config", "tests/privacy/test_accountant.py")
LIGHT += ("tests/flare/test_fault_jobs.py::test_bad_slow_late_and_killed_clients_and_a_full_disk",)


def oldest() -> dict[str, str]:
    """Package → lower bound in pyproject.toml."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = [re.match(r"([\w-]+)>=([\d.]+)", dependency) for dependency in project["dependencies"]]
    return {bound[1]: bound[2] for bound in bounds if bound}


def pins(versions: Mapping[str, str]) -> str:
    """As pip reads them."""
    return "".join(f"{package}=={version}\n" for package, version in versions.items())


def light() -> str:
    """What the light environment is made of."""
    files = ("requirements-light.txt", "requirements.txt")
    return "".join((REPOSITORY / file).read_text(encoding="utf-8") for file in files)


def environment(name: str) -> Path:
    """The Python of an environment with flaretune, which is made if it is not there as it should be."""
    folder = FOLDER / name
    python, made_of = folder / "bin" / "python", folder / "made_of.txt"
    wanted = {"oldest": lambda: pins(oldest()), "newest": lambda: pins(NEWEST), "light": light}
    text = wanted[name]()
    if made_of.is_file() and made_of.read_text(encoding="utf-8") == text:
        return python
    venv.create(folder, clear=True, with_pip=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    tools = (REPOSITORY / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    tools = [line for line in tools if line.partition("==")[0] in TOOLS]
    if name == "light":
        subprocess.run([*install, *tools, "-r", REPOSITORY / "requirements-light.txt"], check=True)
        subprocess.run([*install, "--no-deps", "-e", REPOSITORY], check=True)
    else:
        constraints = folder / "constraints.txt"
        constraints.write_text(text, encoding="utf-8")
        subprocess.run([*install, *tools, "-c", constraints, "-e", REPOSITORY], check=True)
    made_of.write_text(text, encoding="utf-8")
    return python


def main(name: str, *arguments: str) -> int:
    python = environment(name)
    listed = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    print(f"{name}:", *(line for line in listed.splitlines() if line.partition("==")[0] in NEWEST), flush=True)
    chosen = arguments or (LIGHT if name == "light" else FAST)
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    return subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
