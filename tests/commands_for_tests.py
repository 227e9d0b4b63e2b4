"""`python -m flaretune` in this process, and Python in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import flaretune
from flaretune.cli.main import main

SRC = Path(flaretune.__file__).parents[1]


def run(capsys, *argv: str) -> tuple[int, str, str]:
    status = main([str(word) for word in argv])
    return (status, *capsys.readouterr())


def python(*argv: str, path: Path | None = None) -> subprocess.CompletedProcess:
    """A fresh interpreter that sees this package and, before it, `path`."""
    found = os.pathsep.join(str(folder) for folder in (path, SRC) if folder)
    env = {**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, env=env, timeout=300)
