"""Where flaretune keeps what it fetched."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = "{cache}"  # in a path of an option or a task file: `cache_dir()`, which each machine has of its own


def cache_dir() -> Path:
    """Return the folder for fetched models and data: ``FLARETUNE_CACHE``, else ``~/.cache/flaretune``.

    The folder need not exist; whoever writes into it creates it.
    """
    return Path(os.environ.get("FLARETUNE_CACHE") or "~/.cache/flaretune").expanduser()


def in_cache(path: str) -> str:
    """A path of an option or a task file with this machine's cache folder in it, if it names that."""
    return path.replace(CACHE, str(cache_dir()))
