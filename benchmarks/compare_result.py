"""The numbers of a comparison's finished run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from flaretune.engine.results import read_summary
from flaretune.errors import UserError

CONFIG = "config.json"
RENAMED = {"dev_accuracy": "validation_accuracy"}  # of `Result`, since version 0.1.0


@dataclass(frozen=True)
class Result:
    """What a run found, by the names of its summary.json; `parameters` are those trained or (FedBPT) searched."""

    row: str
    split: str
    seed: int
    method: str
    test_accuracy: float
    zero_shot_accuracy: float
    validation_accuracy: float | None
    best_round: int
    rounds: int
    bytes_down_per_client_round: float
    bytes_up_per_client_round: float
    parameters: int
    example_forwards: int
    memory_mb: float
    seconds: float
    soft_label_agreement: float | None
    shared_model: bool = False  # clients use a process that has the model: theirs hold none
    last_accuracy: float | None = None  # on test data, after the last round
    epsilon: float | None = None  # of differential privacy; clients with noise do not tell what they spent

    @property
    def bytes_in_all(self) -> float:
        """Bytes that a client received and sent in the whole run."""
        return self.rounds * (self.bytes_down_per_client_round + self.bytes_up_per_client_round)


@dataclass(frozen=True)
class Finished:
    """A finished run: what it found, when, where, and with which versions of what its numbers depend on."""

    result: Result
    date: str
    machine: str
    versions: Mapping[str, str]

    def entry(self) -> dict[str, Any]:
        """What stands of it among the runs of a plan's JSON file; versions stand there once for all."""
        where = {"date": self.date, "machine": self.machine}
        return {**asdict(self.result), "bytes_in_all": round(self.result.bytes_in_all), **where}


def read_entry(values: Mapping[str, Any]) -> Result:
    """A run as `Finished.entry` told of it, now or under the names of version 0.1.0."""
    values = {RENAMED.get(name, name): value for name, value in values.items()}
    return Result(**{item.name: values[item.name] for item in fields(Result) if item.name in values})


def read_result(folder: Path, row: str, split: str, seed: int, shared_model: bool = False) -> Result:
    """The numbers of a finished run, with what `Result` calls them.

    Raises:
        UserError: summary.json or config.json is missing, damaged, or lacks a number of the table.
    """
    values = read_summary(folder)
    try:
        options = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["options"]
        parameters = options["intrinsic_dim"] if values["method"] == "FedBPT" else values["trained_parameters"]
        own = {"row": row, "split": split, "seed": seed, "rounds": len(values["rounds"]) - 1, "parameters": parameters}
        own |= {"last_accuracy": values["rounds"][-1].get("accuracy")}
        own |= {"shared_model": shared_model, "epsilon": values.get("privacy", {}).get("epsilon")}
        found = {"soft_label_agreement": None, **values, **own}
        if None in (found["test_accuracy"], found["zero_shot_accuracy"]):
            raise ValueError("no test accuracy")
        return Result(**{item.name: found[item.name] for item in fields(Result)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"the results in {folder} lack what the table needs ({error!r}); give every run test data, by eval_clients"
        ) from error
