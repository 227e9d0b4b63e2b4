"""What a running job tells who watches it."""

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
        method: title of its method.
        clients: names of its clients.
        num_rounds: its rounds.
        last_heard: gives, by client, when something of it last arrived, in seconds since 1970.
    """

    def __init__(
        self, method: str, clients: Sequence[str], num_rounds: int, last_heard: Callable[[], Mapping[str, float]]
    ):
        self._method, self._metric, self._best = method, "", 0
        self._clients = list(clients)
        self._num_rounds = num_rounds
        self._last_heard = last_heard
        self._task, self._round, self._sent = "", 0, time.time()
        self._rounds: list[RoundRecord] = []

    def sending(self, task: str, round_number: int) -> None:
        """A task is sent."""
        self._task, self._round, self._sent = task, round_number, time.time()

    def finished(self, record: RoundRecord, metric: str, best_round: int) -> None:
        """A round's result has been evaluated.

        Args:
            record: of the round.
            metric: the metric's title.
            best_round: the best one until now.
        """
        self._rounds.append(record)
        self._metric, self._best = metric, best_round

    def tell(self, _topic: str = TOPIC, _data: Any = None, _fl_ctx: Any = None) -> dict[str, Any]:
        """What is known now, plain JSON values; seconds are ago."""
        now, heard = time.time(), self._last_heard()
        return {
            "method": self._method,
            "metric_title": self._metric,
            "best_round": self._best,
            "task": self._task,
            "round": self._round,
            "num_rounds": self._num_rounds,
            "sent_seconds_ago": round(now - self._sent, 1),
            "clients": {name: round(now - heard[name], 1) if name in heard else None for name in self._clients},
            "rounds": [asdict(record) for record in self._rounds],
        }
