"""The newest libraries that flaretune was tested with, and whether newer ones are installed."""

from __future__ import annotations

from importlib import metadata

from packaging.specifiers import SpecifierSet

# What `make test-versions` has last passed with. The oldest are the lower bounds in pyproject.toml.
NEWEST = {
    "nvflare": "2.9.0",
    "torch": "2.14.1",
    "transformers": "5.24.0",
    "datasets": "5.2.0",
    "peft": "0.21.2",
    "safetensors": "0.8.0",
}


def untested() -> str:
    """One sentence on the installed libraries that are newer than `NEWEST`; "" if none is.

    Nothing is imported for it. A build of the same version (``2.14.1+cu130``) is none that is newer.
    """
    newer = []
    for name, newest in NEWEST.items():
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if SpecifierSet(f">{newest}").contains(here, prereleases=True):
            newer.append(f"{name} {here} (tested up to {newest})")
    return f"newer than what flaretune was tested with: {', '.join(newer)}" if newer else ""
