"""What a site keeps of its soft labels, round by round, for a process or a job that takes over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from flaretune.errors import UserError

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
        partial = file.with_name(f"{file.name}.partial")
        partial.write_bytes(save({name: np.ascontiguousarray(values) for name, values in state.items()}))
        partial.replace(file)
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
            return load(file.read_bytes())
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file}, the soft labels that this site has kept, is damaged ({error})") from error

    def clear(self) -> None:
        """Remove all: a new run begins."""
        for number in self._rounds():
            self._file(number).unlink(missing_ok=True)

    def _file(self, round_number: int) -> Path:
        return self._folder / f"soft_labels_{round_number:05d}.safetensors"

    def _rounds(self) -> list[int]:
        names = (
            re.fullmatch(r"soft_labels_(\d+)\.safetensors", file.name) for file in self._folder.glob("*.safetensors")
        )
        return sorted(int(name[1]) for name in names if name)
