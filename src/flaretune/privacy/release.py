"""A client's noised results: clipped, noised, counted, and no more of them than the client allows."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from flaretune.config.client import ClientConfig
from flaretune.errors import UserError
from flaretune.files import atomic_write
from flaretune.privacy.accountant import DELTA, epsilon

log = logging.getLogger("flaretune.client")

FILE = "privacy.json"


class Releases:
    """Noises what a client sends, and counts how often it did so.

    The count is kept in a file, so that a process that is started anew goes on with it.

    Args:
        options: how.
        folder: where the count is kept; made if it is not there.
        draw: gives the generator of a result's noise. By default a new one for every result, seeded by the operating
            system: the job's seed is known to the server, and noise that it can draw too protects nothing.

    Raises:
        UserError: the count cannot be read.
    """

    def __init__(
        self,
        options: ClientConfig,
        folder: Path,
        draw: Callable[[], np.random.Generator] = np.random.default_rng,
    ):
        self._options = options
        self._file = folder / FILE
        self._draw = draw
        self.count = self._read()

    def count_at_least(self, sent: int) -> None:
        """In a run that resumes after so many results: a count that is not found here was spent all the same."""
        if self.count < sent:
            log.warning(
                "%s has counted %d noised results of this client, and the run had %d rounds: so many are counted",
                *(self._file, self.count, sent),
            )
            self._write(sent)

    def check(self, more: int) -> None:
        """Check that the client allows `more` results.

        Raises:
            UserError: their ε is above the client's limit.
        """
        o = self._options
        spent = epsilon(o.dp_noise, DELTA, self.count + more)
        if 0 < o.dp_epsilon < spent:
            raise UserError(
                f"--dp_epsilon {o.dp_epsilon:g}: after {self.count + more} results with --dp_noise {o.dp_noise:g} ε is "
                f"{spent:.3g} at δ = {DELTA:g}, which is more than this client allows; ask for fewer rounds or more "
                "noise"
            )

    def release(self, base: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What may be sent in place of what was found.

        The change from `base` is shortened to dp_clip, over all arrays together, and gets Gaussian noise of standard
        deviation dp_noise · 2 dp_clip in every entry: with other data the shortened change may point the other way, so
        that its sensitivity is 2 dp_clip.

        Args:
            base: arrays that the server knows, as it sent them.
            found: arrays of the same names and shapes.

        Returns:
            float64 arrays of the same names and shapes.

        Raises:
            UserError: see `check`.
            FloatingPointError: a change is not finite.
        """
        self.check(1)
        o = self._options
        changes = {name: np.asarray(values, dtype=np.float64) - base[name] for name, values in found.items()}
        length = float(np.sqrt(sum(np.sum(change**2) for change in changes.values())))
        if not np.isfinite(length):
            raise FloatingPointError("what this client has found is not finite, so that it has nothing to send")
        scale = min(1.0, o.dp_clip / length) if length else 1.0
        rng, deviation = self._draw(), o.dp_noise * 2 * o.dp_clip
        self._write(self.count + 1)  # before anything is sent
        return {
            name: base[name] + scale * change + rng.normal(scale=deviation, size=change.shape)
            for name, change in changes.items()
        }

    def _read(self) -> int:
        try:
            said = json.loads(self._file.read_text(encoding="utf-8"))
            count = said["releases"]
            if said["sha256"] != _checksum(count):
                raise ValueError("it does not have the sha256 noted in it")
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{self._file}, this client's count of noised results, is damaged ({error})") from error
        if type(count) is not int or count < 0:
            raise UserError(f"{self._file}, this client's count of noised results, is damaged: it says {count!r}")
        return count

    def _write(self, count: int) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self._file, json.dumps({"releases": count, "sha256": _checksum(count)}) + "\n")
        self.count = count


def _checksum(count: int) -> str:
    """A bit that flips would otherwise make another number of it."""
    return hashlib.sha256(f"releases {count!r}".encode()).hexdigest()
