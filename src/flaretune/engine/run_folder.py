"""The folder a job keeps its results in, on the server; every file whole or as it was before."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flaretune.engine.records import RoundRecord
from flaretune.engine.summary import summary, versions, write_json
from flaretune.methods.base import Method
from flaretune.privacy.accountant import account
from flaretune.tasks.metrics.base import Estimate
from flaretune.tasks.metrics.registry import find_metric


class RunFolder:
    """What a run has found: configuration, summary, and the artifact of the best round.

    Args:
        folder: made if it is not there.
        method: the job's.
        settings: what the clients agreed on (`InitializeResult.settings`).
        server: the server's options.
        clients: names of the clients that take part.
        zero_shot: test metric of the model and the template alone; may be set anew.
    """

    def __init__(
        self,
        folder: Path,
        method: Method,
        settings: Mapping[str, Any],
        server: Mapping[str, Any],
        clients: Sequence[str],
        zero_shot: Estimate,
    ):
        self.path, self.settings, self.zero_shot = folder, settings, zero_shot
        self._method, self._clients = method, list(clients)
        self._started = time.monotonic()
        self._rounds: list[RoundRecord] = []
        self._best: RoundRecord | None = None
        self._is_saved = False
        folder.mkdir(parents=True, exist_ok=True)
        self._seconds_before = 0.0  # of earlier parts of a run that goes on
        config = {"server": dict(server), **settings, "clients": self._clients, "versions": versions()}
        write_json({**config, **self._privacy(server.get("num_rounds", 0))}, folder / "config.json")

    def add_round(self, record: RoundRecord, save: Callable[[dict[str, Any]], bool], **more: Any) -> bool:
        """Add a finished round, and save its artifact if it is the best so far by validation accuracy.

        Args:
            record: of the round.
            save: writes the artifact, given what is known of it; False if there is nothing to write yet.
            more: further entries of the summary.

        Returns:
            Whether it is the best so far.
        """
        self._rounds.append(record)
        told = [client for r in self._rounds for client in r.clients]  # ready late, or gone before the run was resumed
        self._clients = list(dict.fromkeys([*self._clients, *told]))
        is_best = not self._is_saved or _rank(record) > _rank(self._best)
        if is_best:
            self._best = record
            self._is_saved = save(self.result_of(record))
        values = summary(
            self._rounds,
            self._best.round,
            self.zero_shot,
            self._seconds(),
            method=self._method.title,
            artifact=self._method.best,
            artifact_kind=self._method.kind,
            task=self.settings["task"]["name"],
            metric=self.settings["task"]["metric"],
            metric_title=find_metric(self.settings["task"]["metric"]).title,
            model=self.settings["model"],
            clients=self._clients,
            **self._method.start_entries(self.settings.get("options", {}), self._rounds[0].accuracy),
            **self.privacy(),
            **more,
        )
        write_json(values, self.path / "summary.json")
        return is_best

    def state(self) -> dict[str, Any]:
        """What `restore` needs, plain JSON values."""
        return {
            "rounds": [asdict(record) for record in self._rounds],
            "best_round": self._best.round if self._best and self._is_saved else None,
            "zero_shot": list(self.zero_shot),
            "seconds": self._seconds(),
        }

    @property
    def best_round(self) -> int:
        """The best round so far; 0 before there is any."""
        return self._best.round if self._best else 0

    @property
    def artifact(self) -> Path | None:
        """The artifact of the best round; None if there is none yet."""
        return self.path / self._method.best if self._is_saved else None

    def restore(self, state: Mapping[str, Any], artifact: Path | None) -> list[RoundRecord]:
        """Go on where another folder of the same run stopped.

        Args:
            state: what its `state` gave.
            artifact: its artifact, which is copied.

        Returns:
            The records of its rounds.
        """
        self._rounds = [RoundRecord(**record) for record in state["rounds"]]
        self._best = next((r for r in self._rounds if r.round == state["best_round"]), None)
        self.zero_shot = Estimate(*state["zero_shot"])
        self._seconds_before = state["seconds"] - self._rounds[0].seconds
        self._is_saved = artifact is not None
        if artifact is not None:
            copy = shutil.copytree if artifact.is_dir() else shutil.copyfile
            copy(artifact, self.path / self._method.best)
        return list(self._rounds)

    def privacy(self) -> dict[str, Any]:
        """An entry on what the run has cost its clients so far; none where nothing is noised."""
        return self._privacy(self.releases)

    @property
    def releases(self) -> int:
        """The most noised results that a client has sent, until the last finished round."""
        return max((r.releases for r in self._rounds), default=0)

    def _privacy(self, releases: int) -> dict[str, Any]:
        told = account(self.settings.get("options", {}), releases)
        return {} if told is None else {"privacy": told}

    def _seconds(self) -> float:
        return self._seconds_before + self._rounds[0].seconds + time.monotonic() - self._started

    def result_of(self, record: RoundRecord) -> dict[str, Any]:
        """What an artifact says of the round that it is from."""
        return {
            "round": record.round,
            "validation_accuracy": record.validation_accuracy,
            "test_accuracy": record.accuracy,
            "zero_shot_accuracy": self.zero_shot.value,
            "versions": versions(),
        }


def _rank(record: RoundRecord) -> tuple[float, int]:
    """Order of results: validation accuracy, then the later round, which has learned from more. Test data has no say.

    The loss on few validation texts is mostly that of one of them.
    """
    accuracy = record.validation_accuracy
    return -1.0 if accuracy is None else round(accuracy, 12), record.round  # equal whatever the order of a sum
