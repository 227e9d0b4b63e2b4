"""Every thread of NVFlare's simulator tells its client's process that client's name, at a port that was silent."""

from __future__ import annotations

import socket
import sys
import threading
from types import SimpleNamespace

import pytest

from flaretune.flare.fixes.simulator import RUNNER, find_ports_without_listening, give_each_thread_its_own_names


@pytest.fixture
def runner(monkeypatch):
    """What NVFlare's runner does with the names: they are kept at first, written, and sent a little later."""

    class SimulatorClientRunner:
        def __init__(self, names):
            self.build_ctx = names

        def do_one_task(self, client, both_have_written):
            self.build_ctx["client_name"] = client
            both_have_written.wait(10)
            return dict(self.build_ctx)

    monkeypatch.setitem(sys.modules, RUNNER, SimpleNamespace(SimulatorClientRunner=SimulatorClientRunner))
    return SimulatorClientRunner


def sent(runner):
    """What two threads that write at the same time send."""
    both_have_written, found = threading.Barrier(2), {}

    def work(client):
        found[client] = runner.do_one_task(client, both_have_written)

    threads = [threading.Thread(target=work, args=(client,)) for client in ("site-1", "site-2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {client: (names["client_name"], names["secure"]) for client, names in found.items()}


def test_two_threads_at_the_same_time(runner):
    there_already = runner({"secure": False})
    wrong = sent(there_already)
    assert wrong["site-1"] == wrong["site-2"]  # as NVFlare does it
    give_each_thread_its_own_names()
    give_each_thread_its_own_names()  # once is enough
    expected = {"site-1": ("site-1", False), "site-2": ("site-2", False)}
    assert sent(there_already) == expected
    assert sent(runner({"secure": False})) == expected


@pytest.fixture
def listened(monkeypatch):
    """Ports that sockets of this process have listened at."""
    ports = []

    class Listening(socket.socket):
        def listen(self, *backlog):
            ports.append(self.getsockname()[1])
            super().listen(*backlog)

    monkeypatch.setattr(socket, "socket", Listening)
    return ports


def test_the_runner_looks_for_free_ports_so(monkeypatch, listened):
    from nvflare.fuel.utils.network_utils import get_open_ports
    from nvflare.private.fed.app.simulator import simulator_runner

    monkeypatch.setattr(simulator_runner, "get_open_ports", get_open_ports)  # a job of another test has changed it
    assert simulator_runner.get_open_ports(1) == listened  # as NVFlare does it
    listened.clear()
    find_ports_without_listening()
    [port] = simulator_runner.get_open_ports(1)
    assert not listened
    with socket.create_server(("localhost", port)):  # it is not held any more
        assert listened == [port]
    assert "get_open_ports" in simulator_runner.SimulatorClientRunner.do_one_task.__code__.co_names


def test_elsewhere_nothing_is_changed(monkeypatch):
    monkeypatch.delitem(sys.modules, RUNNER, raising=False)
    give_each_thread_its_own_names()
    find_ports_without_listening()
    assert RUNNER not in sys.modules


def test_nvflare_s_runner_is_as_this_expects():
    from nvflare.private.fed.app.simulator.simulator_runner import SimulatorClientRunner

    names = SimulatorClientRunner.do_one_task.__code__.co_names
    assert "build_ctx" in names
    assert sys.modules[RUNNER].SimulatorClientRunner is SimulatorClientRunner
