"""What every loader promises for every input: valid data or its own error, soon, and in little memory."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 20  # for one input: no measure of speed, but the end of one that hangs
MEMORY = 1 << 30  # beyond what the process has

# How many inputs each loader is given.
INPUTS = {
    "prompt file": 1500,
    "made-up prompt": 1500,
    "adapter folder": 1500,
    "made-up adapter": 1200,
    "checkpoint": 1200,
    "made-up checkpoint": 800,
    "soft labels": 1000,
    "count of noised results": 400,
    "settings of a checkpoint": 400,
    "task file": 1000,
    "task": 1200,
    "file of options": 600,
    "file of a site's options": 300,
    "message": 3000,
    "task of the server": 600,
    "settings of a client": 1000,
    "query to the model server": 900,
    "reply of the model server": 500,
}


@contextmanager
def limits() -> Iterator[None]:
    """An input that takes too much memory ends in a MemoryError, one that hangs in a TimeoutError: both fail."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"an input took more than {SECONDS} seconds")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def fuzz(
    what: str,
    seed: int,
    make: Callable[[np.random.Generator], Any],
    load: Callable[[Any], Any],
    check: Callable[[Any], None],
    refuses: type[Exception] | tuple[type[Exception], ...],
    share: int = 1,
) -> tuple[int, int]:
    """Give a loader its inputs.

    Args:
        what: its name in `INPUTS`.
        seed: they are drawn from.
        make: an input from a generator.
        load: the loader.
        check: fails if what was loaded is not valid.
        refuses: the loader's own errors; any other fails the test.
        share: how many tests the inputs are divided among.

    Returns:
        How many inputs were loaded and how many refused.
    """
    rng, loaded, n = np.random.default_rng(seed), 0, INPUTS[what] // share
    with limits():
        for _ in range(n):
            given = make(rng)
            signal.alarm(SECONDS)
            try:
                found = load(given)
            except refuses:
                continue
            check(found)
            loaded += 1
    return loaded, n - loaded
