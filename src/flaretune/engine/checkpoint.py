"""What a server needs to go on after it was stopped: written after every round, outside the job's own folder."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from flaretune.errors import UserError
from flaretune.files import atomic_folder, cut_at_number_sign

log = logging.getLogger("flaretune.server")

FORMAT = "flaretune-checkpoint-2"
STATE, ARRAYS, ARTIFACT = "state.json", "arrays.safetensors", "artifact"
SAID = ("run", "round", "settings", "state")  # fields of a `Checkpoint` that are plain JSON values
KEPT = 2  # so that one is left if the newest is damaged


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run after a round.

    Attributes:
        run: name of the run, by which clients find what they have kept of it.
        round: the last round that is finished but for its evaluation.
        settings: what must be the same when it goes on, plain JSON values, by part.
        state: plain JSON values.
        arrays: numbers, by name.
        artifact: file or folder of the best result so far; None if there was none.
    """

    run: str
    round: int
    settings: dict[str, dict[str, Any]]
    state: dict[str, Any]
    arrays: dict[str, np.ndarray]
    artifact: Path | None


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all, and remove those that are older than the one before.

    Raises:
        OSError: it cannot be written; those before stay.
    """
    with atomic_folder(folder / _name(checkpoint.round), durable=True) as partial:
        (partial / ARRAYS).write_bytes(save({name: np.ascontiguousarray(a) for name, a in checkpoint.arrays.items()}))
        if checkpoint.artifact is not None:
            copy = shutil.copytree if checkpoint.artifact.is_dir() else shutil.copyfile
            copy(checkpoint.artifact, partial / ARTIFACT)
        said = {"format": FORMAT, **{name: getattr(checkpoint, name) for name in SAID}}
        text = json.dumps({**said, "sha256": _digest(partial, said)}, indent=1)
        (partial / STATE).write_text(text + "\n", encoding="utf-8")
    for old in _found(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None if there is none yet.

    Raises:
        UserError: the checkpoints are all damaged or of another version; or there are none, and another folder's name
            goes on where this one's was cut; or the folder cannot be read.
    """
    try:
        found, reasons = _found(folder), []
    except OSError as error:
        raise UserError(f"checkpoint {folder}: it cannot be read: {error.strerror or error}") from error
    for path in found:
        try:
            return _read(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError, RecursionError) as error:
            reasons.append(f"{path.name} is damaged or of another version ({error})")
            log.warning("checkpoint %s: %s", folder, reasons[-1])
    if found:
        raise UserError(f"no checkpoint in {folder} can be used: {'; '.join(reasons)}; start anew in another folder")
    if longer := cut_at_number_sign(folder):
        raise UserError(
            f"checkpoint {folder}: cut off, it seems, as there is {longer}: NVFlare drops what follows a #, unless "
            "the job is created with double quotes inside single ones, as in checkpoint='\"a#b\"'; if it is whole, "
            "give the folder another name"
        )
    return None


def _read(path: Path) -> Checkpoint:
    said = json.loads((path / STATE).read_text(encoding="utf-8"))
    if said["format"] != FORMAT:
        raise ValueError(f"its format is {said['format']!r}, not {FORMAT!r}")
    sha256 = said.pop("sha256")
    if sha256 != _digest(path, said):
        raise ValueError("its contents do not have the sha256 noted in it")
    _check_types(path, said)
    arrays = load((path / ARRAYS).read_bytes())
    artifact = path / ARTIFACT
    kept = {name: said[name] for name in SAID}
    return Checkpoint(**kept, arrays=arrays, artifact=artifact if artifact.exists() else None)


def _check_types(path: Path, said: Mapping[str, Any]) -> None:
    """Check what a checkpoint says of itself; the run's name becomes that of folders at the clients."""
    if not (isinstance(said["run"], str) and re.fullmatch(r"[0-9a-f]{1,64}", said["run"])):
        raise ValueError(f"the run's name {said['run']!r} is none that a server gives")
    if type(said["round"]) is not int or path.name != _name(said["round"]):
        raise ValueError(f"its round is {said['round']!r}")
    settings = said["settings"]
    if not (isinstance(settings, dict) and all(isinstance(part, dict) for part in settings.values())):
        raise ValueError("its settings are no table of tables")
    if not isinstance(said["state"], dict):
        raise ValueError("its state is no table")


def check_settings(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a run can go on: with settings as `Checkpoint.settings` has them.

    Raises:
        UserError: they differ; says in what.
    """
    for part in now:
        for key in sorted({*now[part], *then.get(part, {})}):
            before, asked = then.get(part, {}).get(key), json.loads(json.dumps(now[part].get(key)))
            if before != asked:
                raise UserError(
                    f"--checkpoint {folder}: the run there has other settings: {part}, {key} is {before!r} there and "
                    f"{asked!r} here; go on with the same, or start anew in another folder"
                )


def _name(round_number: int) -> str:
    return f"round_{round_number:05d}"


def _found(folder: Path) -> list[Path]:
    """Checkpoints, the newest first."""
    found = (path for path in folder.glob("round_*") if path.suffix not in (".partial", ".old"))
    return sorted(found, reverse=True) if folder.is_dir() else []


def _files(path: Path) -> list[Path]:
    """What the checksum is of besides the state."""
    entries = list(path.rglob("*"))
    for entry in (path, *entries):
        if entry.is_symlink():  # to what is none of the run's
            raise ValueError(f"{entry.name} is a link")
    return sorted(entry for entry in entries if entry.is_file() and entry != path / STATE)


def _digest(path: Path, said: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for file in _files(path):
        digest.update(f"\n{file.relative_to(path)}\n".encode())
        with file.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
