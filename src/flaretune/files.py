"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cut_at_number_sign(path: Path) -> Path | None:
    """What lies beside a path that goes on with a # where the path ends; None if nothing does.

    `nvflare job create` of NVFlare 2.9 takes a value outside double quotes for HOCON, and drops what follows a #.
    """
    return next(path.parent.glob(f"{glob.escape(path.name)}#*"), None) if path.name else None


def atomic_write(path: Path, contents: bytes | str) -> None:
    """Write a file, text as UTF-8, under another name first: readers find the former contents or the new.

    Raises:
        OSError: it cannot be written; the former file stays.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Make a folder anew: what is yielded is to be filled, and takes the place of the former one when all went well.

    Whoever is killed between two renames leaves the former folder as ``<path>.old``; it goes when a new one is there.

    Args:
        path: the folder.
        durable: have its files on the disk, and not only in memory, before it gets its name.

    Raises:
        OSError: it cannot be written; the former folder stays, as after any other exception.
    """
    partial, old = (path.with_name(path.name + ending) for ending in (".partial", ".old"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in partial.rglob("*") if durable else ():
            if file.is_file():
                _flush(file)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    partial.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _flush(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
