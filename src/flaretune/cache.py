"""Where flaretune keeps what it fetched."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder for fetched models and data: ``FLARETUNE_CACHE``, else ``~/.cache/flaretune``.

    The folder need not exist; whoever writes into it creates it.
    """
    return Path(os.environ.get("FLARETUNE_CACHE") or "~/.cache/flaretune").expanduser()
