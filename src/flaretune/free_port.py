"""A port for a process of this machine that is about to be started."""

import socket


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses; it is held for a moment, and never listened at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]
