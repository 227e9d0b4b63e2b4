"""What a client keeps of its soft labels, round by round, for a process or a job that takes over."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flaretune.errors import UserError
from flaretune.files import atomic_write

KEPT = 3  # the server may go on one round earlier, and its newest checkpoint may be damaged


class KeptStates:
    """States by round, in a folder.

    Args:
        folder: made when the first is kept.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def save(self, round_number: int, state: Mapping[str, np.ndarray]) -> None:
        """Keep a round's state, whole or not at all, and remove old ones."""
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._file(round_number)
        arrays = {name: np.ascontiguousarray(values) for name, values in state.items()}
        atomic_write(file, save(arrays, {"sha256": _checksum(arrays)}))
        for number in self._rounds()[:-KEPT]:
            self._file(number).unlink(missing_ok=True)

    def load(self, round_number: int | None = None) -> dict[str, np.ndarray] | None:
        """The state after a round, or the newest; None if none was kept until then.

        Raises:
            UserError: it cannot be read.
        """
        numbers = [n for n in self._rounds() if round_number is None or n <= round_number]
        if not numbers:
            return None
        file = self._file(numbers[-1])
        try:
            with safe_open(file, framework="numpy") as stream:
                arrays = {name: stream.get_tensor(name) for name in sorted(stream.keys())}
                if (stream.metadata() or {}).get("sha256") != _checksum(arrays):
                    raise ValueError("its contents do not have the sha256 noted in it")
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file}, the soft labels that this client has kept, is damaged ({error})") from error
        return arrays

    def clear(self, after: int = 0) -> None:
        """Remove those of later rounds than `after`: a run begins, or goes on from there."""
        for number in self._rounds():
            if number > after:
                self._file(number).unlink(missing_ok=True)

    def _file(self, round_number: int) -> Path:
        return self._folder / f"soft_labels_{round_number:05d}.safetensors"

    def _rounds(self) -> list[int]:
        names = (
            re.fullmatch(r"soft_labels_(\d+)\.safetensors", file.name) for file in self._folder.glob("*.safetensors")
        )
        return sorted(int(name[1]) for name in names if name)


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        digest.update(f"\n{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
