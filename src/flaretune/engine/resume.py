"""A run that outlives its job: found when a job begins, saved after every round."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flaretune.engine.checkpoint import Checkpoint, check_settings, load_checkpoint, save_checkpoint
from flaretune.engine.records import RoundRecord
from flaretune.engine.run_folder import RunFolder
from flaretune.errors import UserError
from flaretune.methods.base import Resumed
from flaretune.methods.exchanged import Arrays

log = logging.getLogger("flaretune.server")


class ResumableRun:
    """A run in a folder of checkpoints, or one without any.

    Args:
        folder: of the checkpoints; "" for none.
        num_rounds: of the job.

    Attributes:
        name: of the run, by which clients find what they have kept of it; "" without checkpoints.
        earlier: where the job goes on; None at the start of a run.
        releases_before: the most noised results that a client can have sent in earlier jobs of the run.

    Raises:
        UserError: the checkpoints there cannot be used, or are of a run with more rounds.
    """

    def __init__(self, folder: str, num_rounds: int):
        self._folder = Path(folder).expanduser()
        self.earlier: Checkpoint | None = load_checkpoint(self._folder) if folder else None
        self.name = self.earlier.run if self.earlier else secrets.token_hex(8) if folder else ""
        self._settings: dict[str, dict[str, Any]] = {}
        self._shares: list[str] = []
        if self.after_round > num_rounds:
            raise UserError(
                f"--checkpoint {folder}: the run there has finished round {self.after_round}, and --num_rounds is "
                f"{num_rounds}; give more rounds, or another folder"
            )
        self.releases_before = 0
        if self.earlier:
            with self.taking_up():  # and of rounds after that, which the job before could not keep
                releases = self.earlier.state["record"].get("releases", 0)
                if type(releases) is not int or releases < 0:
                    raise ValueError(f"releases is {releases!r}")
                self.releases_before = releases + num_rounds

    @property
    def after_round(self) -> int:
        """The last finished round; 0 at the start of a run."""
        return self.earlier.round if self.earlier else 0

    @contextmanager
    def taking_up(self) -> Iterator[None]:
        """While a checkpoint is read.

        Raises:
            UserError: it is not what this version writes.
        """
        try:
            yield
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            if self.earlier is None:
                raise
            raise UserError(
                f"--checkpoint {self._folder}: the run there cannot be taken up ({type(error).__name__}: {error}): it "
                "is of another version or was edited; start anew in another folder"
            ) from error

    def begin(self, settings: Mapping[str, Any], server: Mapping[str, Any], shares: Sequence[str]) -> None:
        """Say with what the run is made.

        Args:
            settings: what the clients agree on.
            server: options of the server that must stay the same.
            shares: names of the clients in the order of their shares of a common data set.

        Raises:
            UserError: the earlier part of it was made with something else.
        """
        model = {
            key: value for key, value in settings["model"].items() if key != "name"
        }  # differs from client to client
        parts = {"options": settings["options"], "task": settings["task"], "model": model, "server": dict(server)}
        self._settings, self._shares = parts, list(shares)
        if self.earlier is None:
            return
        check_settings(self._folder, self.earlier.settings, self._settings)
        if self.earlier.state["shares"] != self._shares:
            log.warning(
                "the run had the clients %s and now has %s: shares of a common data set are other ones",
                ", ".join(self.earlier.state["shares"]),
                ", ".join(self._shares),
            )
        log.info("going on after round %d of the run in %s", self.after_round, self._folder)

    @property
    def resumed(self) -> Resumed | None:
        """What the method goes on from; None at the start of a run."""
        e = self.earlier
        return Resumed(e.arrays, e.state["method"], e.artifact) if e else None

    def save(
        self, record: RoundRecord, results: RunFolder, arrays: Arrays, method: Mapping[str, Any], **more: Any
    ) -> None:
        """Write a checkpoint after a round.

        Args:
            record: of the round, finished but for its evaluation.
            results: of the rounds before.
            arrays, method: what the method goes on from (`Strategy.state`).
            more: further plain JSON values.
        """
        if not self.name:
            return
        state = {
            "results": results.state(),
            "record": asdict(record),
            "shares": self._shares,
            "method": dict(method),
            **more,
        }
        checkpoint = Checkpoint(self.name, record.round, self._settings, state, dict(arrays), results.artifact)
        try:
            save_checkpoint(self._folder, checkpoint)
        except OSError as error:
            log.warning(
                "round %d: no checkpoint could be written to %s (%s): the run goes on, and if it is stopped it will be "
                "taken up after an earlier round",
                record.round,
                self._folder,
                error.strerror or error,
            )


def warn_of_other_formats(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Say which clients compute in another number format than they did in an earlier part of the run."""
    for client in before.keys() & now.keys():
        if before[client] != now[client]:
            log.warning(
                "%s computed in %s before and computes in %s now: numbers differ a little (--dtype sets one)",
                *(client, before[client], now[client]),
            )
