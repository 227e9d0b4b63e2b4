"""What this machine gives to a process that is about to be started, and its garbage collector."""

from __future__ import annotations

import gc
import socket
from pathlib import Path

import pytest

from flaretune.host import free_port, no_garbage_collection


def test_a_free_port_is_none_that_the_kernel_gives_to_somebody_else():
    first, _last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = {free_port() for _ in range(50)}
    assert max(ports) < max(first, 2**15)
    assert min(ports) >= 10_000
    assert len(ports) > 1
    for port in ports:
        with socket.socket() as ours:
            ours.bind(("127.0.0.1", port))


def test_a_port_in_use_is_not_free(monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        used = other.getsockname()[1]
        drawn = iter([used, used, free_port()])
        monkeypatch.setattr("random.SystemRandom.randrange", lambda *_: next(drawn))
        assert free_port() != used
        assert next(drawn, None) is None


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_as_before_whatever_happens(enabled):
    seen, was_enabled = [], gc.isenabled()

    @no_garbage_collection()
    def load():
        seen.append(gc.isenabled())
        raise OSError("no disk")

    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(OSError, match="no disk"):
            load()
        assert (seen, gc.isenabled()) == ([False], enabled)
    finally:
        (gc.enable if was_enabled else gc.disable)()
