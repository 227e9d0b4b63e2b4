"""Run the fast tests with the oldest or the newest supported libraries, in an environment of their own.

    python tests/versions.py oldest|newest [PYTEST ARGUMENT …]

Oldest are the lower bounds in pyproject.toml, of every dependency; newest is `flaretune.versions.NEWEST`, and of all
else what pip finds to be the newest. An environment is kept in build/versions/ until its versions change.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

from flaretune.config.toml import tomllib
from flaretune.versions import NEWEST

REPOSITORY = Path(__file__).parents[1]
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "nbformat")  # of requirements-dev.txt, what the fast tests need


def oldest() -> dict[str, str]:
    """Package → lower bound in pyproject.toml."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = [re.match(r"([\w-]+)>=([\d.]+)", dependency) for dependency in project["dependencies"]]
    return {bound[1]: bound[2] for bound in bounds if bound}


def environment(name: str, versions: dict[str, str]) -> Path:
    """The Python of an environment with flaretune and these versions, which is made if it is not there."""
    folder = REPOSITORY / "build" / "versions" / name
    python, constraints = folder / "bin" / "python", folder / "constraints.txt"
    pins = "".join(f"{package}=={version}\n" for package, version in versions.items())
    if not constraints.is_file() or constraints.read_text(encoding="utf-8") != pins:
        venv.create(folder, clear=True, with_pip=True)
        wanted = folder / "wanted.txt"  # takes its place when all is installed
        wanted.write_text(pins, encoding="utf-8")
        dev = (REPOSITORY / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
        tools = [line for line in dev if line.partition("==")[0] in TOOLS]
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", wanted]
        subprocess.run([*command, *tools, "-e", REPOSITORY], check=True)
        wanted.rename(constraints)
    return python


def main(name: str, *arguments: str) -> int:
    versions = {"oldest": oldest, "newest": lambda: NEWEST}[name]()
    python = environment(name, versions)
    listed = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    print(f"{name}:", *(line for line in listed.splitlines() if line.partition("==")[0] in versions))
    chosen = arguments or ("-m", "not slow", "-n", "2", "--dist", "loadgroup")
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    return subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
