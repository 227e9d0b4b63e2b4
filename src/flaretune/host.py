"""This machine: a free port for a process that is about to be started, and an output that takes or needs less."""

import os
import socket
import sys


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses; it is held for a moment, and never listened at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def replace_unprintable() -> None:
    """Let a stdout that is not UTF-8 print "?" for what it lacks: the work it tells of is done."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")


def write_nowhere() -> None:
    """Let what is still to be printed vanish: who reads the output, such as `head`, has seen enough."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
