"""This process and its machine: ports, environment, memory and garbage, and an output that takes less."""

import ctypes
import gc
import os
import random
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FIRST_PORT = 10_000  # below are those of well-known services
GIVEN_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ANY = random.SystemRandom()  # whatever seeds a job sets


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses; it is held for a moment, and never listened at.

    It is none of those that the kernel gives to connections and to who asks for any: who is about to start may need
    seconds until it listens.

    Raises:
        OSError: a thousand of them are in use.
    """
    for _ in range(1000):
        with socket.socket() as held:
            try:
                held.bind(("127.0.0.1", _ANY.randrange(FIRST_PORT, _first_given())))
                return held.getsockname()[1]
            except OSError as error:
                problem = error
    raise problem


def _first_given() -> int:
    """The first port that the kernel gives."""
    try:
        first = int(GIVEN_PORTS.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):  # no Linux
        first = 0
    return first if first > 2 * FIRST_PORT else 2**15


@contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """While this lasts, a variable of the environment has this value, here and in processes that are started."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """For importing and loading: what that makes stays, and looking through it time and again takes a fifth of it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def give_memory_back() -> None:
    """Let the system have the memory that was freed and that glibc holds, in pieces between what is still in use.

    With another C library nothing happens.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def replace_unprintable() -> None:
    """Let a stdout that is not UTF-8 print "?" for what it lacks: the work it tells of is done."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")


def write_nowhere() -> None:
    """Let what is still to be printed vanish: who reads the output, such as `head`, has seen enough."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
