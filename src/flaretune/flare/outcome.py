"""Why a job failed, from what it has left in folders of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flaretune.engine.errors import SERVER, failures_below

Failures = dict[str, list[str]]  # sentence → who said it


class SimulationFailed(RuntimeError):
    """A simulated job failed; its text says what went wrong at whom.

    Args:
        reason: one sentence of the simulator's; the text where nobody else has said anything.
    """

    def __init__(self, reason: str, failures: Failures):
        self.reason = reason
        super().__init__("; ".join(f"{', '.join(who)}: {said}" for said, who in failures.items()) or reason)


def failures_in(*folders: str | Path | None) -> Failures:
    """What clients and server recorded as wrong below folders, those of clients first."""
    said: Failures = {}
    for folder in filter(None, folders):
        for failure in failures_below(Path(folder)):
            who = said.setdefault(failure.sentence, [])
            who += [failure.who] if failure.who not in who else []
    return dict(sorted(said.items(), key=lambda item: item[1] == [SERVER]))


@contextmanager
def telling_why(logs: Path) -> Iterator[None]:
    """While a job is simulated: in place of NVFlare's error, which names log files that may not be there.

    Raises:
        SimulationFailed: the simulation failed.
    """
    try:
        yield
    except RuntimeError as error:
        failures = failures_in(logs)
        reason = str(error) if failures else _last_error(logs) or str(error)
        raise SimulationFailed(reason, failures) from error


def _last_error(logs: Path) -> str:
    """The last error in the log of a simulated server, and where that lies; "" if it has none."""
    for log in (logs / "server" / "simulate_job" / "log.txt", logs / "server" / "log.txt"):
        if log.is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            if errors := [line.partition(" - ERROR - ")[2] for line in lines if " - ERROR - " in line]:
                return f"the simulator failed: {errors[-1]} (its log is {log})"
    return ""
