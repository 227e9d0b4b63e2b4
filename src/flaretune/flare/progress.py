"""What a running job tells who watches it, through NVFlare's application commands."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flaretune.engine.records import RoundRecord

TOPIC = "flaretune.progress"


class Progress:
    """How far a job is.

    Args:
        sites: names of its sites.
        num_rounds: its rounds.
        last_heard: gives, by site, when something of it last arrived, in seconds since 1970.
    """

    def __init__(self, sites: Sequence[str], num_rounds: int, last_heard: Callable[[], Mapping[str, float]]):
        self._sites = list(sites)
        self._num_rounds = num_rounds
        self._last_heard = last_heard
        self._task, self._round, self._asked = "", 0, time.time()
        self._rounds: list[RoundRecord] = []

    def asking(self, task: str, round_number: int) -> None:
        """The sites are asked."""
        self._task, self._round, self._asked = task, round_number, time.time()

    def finished(self, record: RoundRecord) -> None:
        """A round's result has been evaluated."""
        self._rounds.append(record)

    def tell(self, _topic: str = TOPIC, _data: Any = None, _fl_ctx: Any = None) -> dict[str, Any]:
        """What is known now, plain JSON values; seconds are ago."""
        now, heard = time.time(), self._last_heard()
        return {
            "task": self._task,
            "round": self._round,
            "num_rounds": self._num_rounds,
            "asked_seconds_ago": round(now - self._asked, 1),
            "sites": {site: round(now - heard[site], 1) if site in heard else None for site in self._sites},
            "rounds": [asdict(record) for record in self._rounds],
        }
