"""What goes wrong at the server or a client, as data among the results: a line of JSON each, with who it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "errors.jsonl"
SERVER = "server"


class JobFailed(Exception):
    """A job cannot go on; the message is one sentence."""


@dataclass(frozen=True)
class Failure:
    """What went wrong.

    Attributes:
        who: name of the client, or `SERVER`.
        sentence: what to tell people.
    """

    who: str
    sentence: str


def record_failure(folder: Path, failure: Failure) -> None:
    """Add a failure to those of a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(failure), ensure_ascii=False) + "\n")


def failures_below(folder: Path) -> Iterator[Failure]:
    """Failures in all folders below this one, each once; unfinished lines of killed processes are passed over."""
    seen = set()
    for file in sorted(folder.rglob(FILE)):
        for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                failure = Failure(**json.loads(line))
            except (ValueError, TypeError):
                continue
            if failure not in seen:
                seen.add(failure)
                yield failure
