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

counted: dict[str, int] = {}  # inputs by what they were given to


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
    n: int,
    seed: int,
    make: Callable[[np.random.Generator], Any],
    load: Callable[[Any], Any],
    check: Callable[[Any], None],
    refuses: type[Exception] | tuple[type[Exception], ...],
) -> tuple[int, int]:
    """Give a loader n inputs.

    Args:
        what: its name, for the count.
        n: inputs.
        seed: they are drawn from.
        make: an input from a generator.
        load: the loader.
        check: fails if what was loaded is not valid.
        refuses: the loader's own errors; any other fails the test.

    Returns:
        How many inputs were loaded and how many refused.
    """
    rng, loaded = np.random.default_rng(seed), 0
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
    counted[what] = counted.get(what, 0) + n
    return loaded, n - loaded
