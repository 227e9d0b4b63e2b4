"""Folders that appear in the cache whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from flaretune.errors import UserError
from flaretune.files import atomic_folder

MARKER = "source.json"


def install(target: Path, source: dict, build: Callable[[Path, Path], dict[str, str]]) -> Path:
    """Make the folder ``target`` through ``build``, whole or not at all, unless it is there already; gives it back.

    One process at a time does so; others wait for it. What a killed one has left behind goes with the next.

    Args:
        target: the folder; it is complete when its marker names ``source`` and all its files have the sizes
            noted there.
        source: what the folder is made from, in plain JSON types.
        build: called with the new folder to fill and with a scratch folder for what is not to stay; returns
            the versions of what it used, for the marker.

    Raises:
        UserError: the place cannot be written to, or the disk is full; and whatever ``build`` raises.
    """
    if is_complete(target, source):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not is_complete(target, source):  # another process may have made it meanwhile
                _make(target, source, build)
    except UserError:
        raise
    except Exception as error:
        # Not only OSError: the safetensors library has an exception of its own for a full disk.
        if "No space left on device" in str(error):
            raise disk_full(target.parent) from error
        if isinstance(error, OSError):
            raise UserError(
                f"cannot write to {target.parent} ({error.strerror or error}): set FLARETUNE_CACHE to a "
                "folder that can be written to"
            ) from error
        raise
    return target


def _make(target: Path, source: dict, build: Callable[[Path, Path], dict[str, str]]) -> None:
    with atomic_folder(target) as folder:
        scratch = folder / ".scratch"
        scratch.mkdir()
        made_with = build(folder, scratch)
        shutil.rmtree(scratch)
        sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        marker = {"source": source, "made_with": made_with, "sizes": sizes}
        (folder / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def is_complete(target: Path, source: dict) -> bool:
    """Tell whether ``target`` was made from ``source`` and its files are still all there."""
    try:
        marker = json.loads((target / MARKER).read_text(encoding="utf-8"))
        return marker["source"] == source and all(
            (target / name).stat().st_size == size for name, size in marker["sizes"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no marker, or not one of ours
        return False


def disk_full(place: Path) -> UserError:
    """Return the error for a disk without room at ``place``."""
    return UserError(f"the disk is full at {place}: make room, or set FLARETUNE_CACHE to a folder on another disk")
