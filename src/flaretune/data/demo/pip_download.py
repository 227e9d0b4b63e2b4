"""Single files from the Python package index, each pinned by sha256, without installing anything."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from flaretune.errors import UserError


def download(pinned: dict[str, str], folder: Path, *, wheels: bool) -> list[Path]:
    """Download one file for each requirement with the user's own pip, so that its mirrors and proxies apply.

    On a terminal, pip draws its progress bars.

    Args:
        pinned: requirement ``name==version`` -> sha256 of the file.
        folder: where to put the files; made if it is not there.
        wheels: True for wheels only, False for source distributions only.

    Returns:
        The files, in the order of ``pinned``.

    Raises:
        UserError: pip is missing or failed, the disk is full, or a file has another sha256.
    """
    folder.mkdir(parents=True, exist_ok=True)
    requirements = folder / "requirements.txt"
    lines = [f"{requirement} --hash=sha256:{sha256}\n" for requirement, sha256 in pinned.items()]
    requirements.write_text("".join(lines), encoding="utf-8")
    if wheels:
        kind = ["--only-binary", ":all:"]
    else:  # named one by one: with :all: pip would build even the build tools from source
        kind = [word for requirement in pinned for word in ("--no-binary", requirement.split("==")[0])]
    command = [sys.executable, "-m", "pip", "download", "--no-input", "--no-deps", "--require-hashes"]
    command += [*kind, "--dest", str(folder), "--requirement", str(requirements)]
    on_terminal = sys.stdout.isatty()
    if not on_terminal:
        command.append("--quiet")
    streams = {"stdin": subprocess.DEVNULL, "stdout": None if on_terminal else subprocess.PIPE}
    finished = subprocess.run(command, **streams, stderr=subprocess.PIPE, text=True, check=False)
    if finished.returncode != 0:
        raise _failure((finished.stdout or "") + finished.stderr, pinned)
    # Checked again here: a user's pip need not honour --require-hashes as ours does.
    by_sha256 = {_sha256(file): file for file in folder.iterdir() if file != requirements}
    for requirement, sha256 in pinned.items():
        if sha256 not in by_sha256:
            raise _wrong_hash(requirement)
    return [by_sha256[sha256] for sha256 in pinned.values()]


def _failure(output: str, pinned: dict[str, str]) -> UserError:
    wanted = ", ".join(pinned)
    if "No module named pip" in output:
        return UserError(f"{sys.executable} has no pip: add it with `{sys.executable} -m ensurepip`")
    if "DO NOT MATCH THE HASHES" in output:
        return _wrong_hash(wanted)
    if "No space left on device" in output:
        return UserError(
            f"the disk is full while downloading {wanted}: make room, or set FLARETUNE_CACHE (and TMPDIR) to "
            "folders on another disk"
        )
    errors = [line[6:].strip() for line in output.splitlines() if line.lower().startswith("error:")]
    reason = errors[-1] if errors else (output.strip().splitlines() or ["no message"])[-1]
    return UserError(
        f"pip could not download {wanted} ({reason}): check that the package index, or the mirror in pip's "
        "configuration, can be reached"
    )


def _wrong_hash(wanted: str) -> UserError:
    return UserError(
        f"the package index gave a file with another sha256 than the pinned one for {wanted}: use an index "
        "that carries the original files"
    )


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
