"""Faults in real NVFlare processes: bad replies, slow, late and killed clients, a full disk, lost hosts, SIGTERM.

Their clients' script is light_process.py, which needs no model. A proof-of-concept federation of real clients is here
too: all of these have the same port, and pytest-xdist keeps a file's tests together.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import processes
import psutil
import pytest
from nvflare.fuel.flare_api.api_spec import NoConnection
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from flaretune.methods.fedbpt.artifact import load_prompt
from tests.jobs_for_tests import REPOSITORY, command_in, environment_in, read_summary

pytestmark = pytest.mark.slow

RESULTS = Path("server") / "simulate_job" / "flaretune"
SMALL = ["--intrinsic_dim", 10, "--local_iter", 4, "--eval_clients", "all"]


def export(run, folder: Path, *flags) -> Path:
    """A job of light clients; returns its folder."""
    job = run(sys.executable, "jobs/fedbpt_job.py", "--export", "--export-dir", folder, *SMALL, *flags)
    assert job.returncode == 0, job.stderr
    assert not list(folder.rglob("__pycache__"))
    custom, here = folder / "fedbpt" / "app" / "custom", Path(__file__).parent
    shutil.copy(here / "light_process.py", custom / "fedbpt_train.py")
    shutil.copy(here / "light_client.py", custom)
    return folder / "fedbpt"


def with_a_full_disk(folder: Path) -> list[str]:
    """A command's beginning, by which the folder is a full disk; where that is not allowed, no folder at all."""
    fill = f"mount -t tmpfs -o size=16k tmpfs {folder} && head -c 64k /dev/zero > {folder}/filler 2>/dev/null;"
    begin = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{fill} exec "$@"', "sh"]
    folder.mkdir()
    looked = subprocess.run([*begin, "df", "--output=avail", str(folder)], capture_output=True, text=True)
    if looked.returncode == 0 and looked.stdout.split()[-1] == "0":
        return begin
    folder.rmdir()
    folder.write_text("no folder", encoding="utf-8")
    return []


def test_bad_slow_late_and_killed_clients_and_a_full_disk(tmp_path, monkeypatch):
    """One job in the simulator, which ends well; every round says who was excluded, and why."""
    out, checkpoint = tmp_path / "out", tmp_path / "checkpoint"
    monkeypatch.setenv("FLARETUNE_TEST_RESULTS", str(out / RESULTS))
    run = command_in(tmp_path)
    flags = ["--num_rounds", 6, "--round_timeout", 30, "--setup_timeout", 300, "--checkpoint", checkpoint]
    job = export(run, tmp_path / "export", *flags)
    names = "damaged,killed,late,liar,site-1,site-2,slow"
    simulator = ["nvflare", "simulator", job, "-c", names, "-t", 7, "-w", out]
    done = run(*with_a_full_disk(checkpoint), *simulator)
    assert done.returncode == 0, done.stdout[-3000:]
    rounds = read_summary(out / RESULTS)["rounds"]
    assert [set(r["excluded"]) for r in rounds] == [
        {"late"}, {"damaged"}, {"damaged", "slow"}, {"damaged", "killed"}, {"damaged", "killed"}, {"damaged", "killed"},
        {"killed"},
    ]  # fmt: skip
    reasons = ["not finite", "not finite", "shape (11,)", "schema 999", "'fitness' is -1e+09"]
    for record, reason in zip(rounds[1:6], reasons, strict=True):
        assert reason in record["excluded"]["damaged"]
        assert f"round {record['round']}: the fit reply of damaged is not used: " in done.stdout
    assert "late" not in rounds[2]["clients"]
    assert "late" in rounds[3]["clients"]
    assert [r["clipped"] for r in rounds] == [[], *[["liar"]] * 6]
    assert rounds[-1]["accuracy"] == 1.0
    assert done.stdout.count("no checkpoint could be written to") == 6
    assert "(No space left on device)" in done.stdout or checkpoint.is_file()


class Federation:
    """A server and clients as processes of this test, of kits that `nvflare poc prepare` has made."""

    def __init__(self, folder: Path, clients: list[str]):
        self._environment = environment_in(folder)
        run = command_in(folder)
        prepared = run("nvflare", "poc", "prepare", "-c", *clients)
        assert prepared.returncode == 0, prepared.stdout + prepared.stderr
        [self.kits] = (folder / "poc").glob("*/prod_00")
        settings = self.kits / "server" / "startup" / "fed_server.json"
        values = json.loads(settings.read_text(encoding="utf-8"))
        values["servers"][0]["heart_beat_timeout"] = 15
        settings.write_text(json.dumps(values), encoding="utf-8")
        for client in clients:  # who is silent for 15 seconds is dead
            script = self.kits / client / "startup" / "sub_start.sh"
            text = script.read_text(encoding="utf-8")
            script.write_text(text.replace("config_folder=config", "config_folder=config heart_beat_interval=1"))
        self.processes: dict[str, psutil.Popen] = {}

    def start(self, name: str) -> None:
        script = str(self.kits / name / "startup" / "sub_start.sh")
        with (self.kits / f"{name}.log").open("ab") as log:
            streams = {"stdout": log, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
            self.processes[name] = psutil.Popen(["bash", script, "--once"], env=self._environment, **streams)

    def kill(self, name: str, number: int = signal.SIGKILL, with_its_jobs: bool = True) -> list[psutil.Process]:
        """Send a signal to a server or client; returns its processes."""
        process = self.processes.pop(name)
        family = [process, *process.children(recursive=True)]
        for member in family if with_its_jobs else [process]:
            member.send_signal(number)
        return family

    def session(self) -> Session:
        """An administrator's, once the server answers."""
        deadline = time.monotonic() + 120
        while True:
            try:
                return new_secure_session("admin@nvidia.com", str(self.kits / "admin@nvidia.com"), timeout=5.0)
            except NoConnection:
                assert time.monotonic() < deadline
                time.sleep(1)

    def stop(self) -> None:
        family = [member for name in list(self.processes) for member in self.kill(name)]
        psutil.wait_procs(family, timeout=20)


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


@pytest.fixture
def federation(tmp_path, monkeypatch):
    monkeypatch.setenv("FLARETUNE_TEST_SECONDS", "0.5")
    made = Federation(tmp_path, ["hospital-a", "hospital-b", "hospital-c"])
    yield made
    made.stop()


def test_sigterm_to_the_server_a_client_that_comes_later_and_one_that_is_gone_for_good(federation, tmp_path):
    """The run ends with its server's processes, and is resumed by a second job with another client; one is killed."""
    checkpoint = tmp_path / "checkpoint"
    flags = ["--num_rounds", 30, "--round_timeout", 600, "--min_clients", 2, "--checkpoint", checkpoint]
    job = export(command_in(tmp_path), tmp_path / "export", *flags)
    config = job / "app" / "config" / "config_fed_server.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    soon = {"dead_client_grace_period": 2.0, "dead_client_check_lead_time": 1.0}
    config.write_text(json.dumps({**values, **soon}), encoding="utf-8")

    def last_round() -> int:
        names = [path.name.removeprefix("round_") for path in checkpoint.glob("round_*")]
        return max((int(name) for name in names if name.isdigit()), default=0)  # others are half written

    def clients() -> set[str]:
        return {client.name for client in session.get_connected_client_list()}

    for name in ("server", "hospital-a", "hospital-b"):
        federation.start(name)
    session = federation.session()
    wait_until(lambda: clients() == {"hospital-a", "hospital-b"}, 60)
    first = session.submit_job(str(job))
    wait_until(lambda: last_round() >= 2, 120)
    federation.start("hospital-c")
    wait_until(lambda: "hospital-c" in clients(), 60)
    assert session.get_job_meta(first)["status"] == "RUNNING"
    session.close()

    family = federation.kill("server", signal.SIGTERM, with_its_jobs=False)
    assert len(family) > 1  # the server's own process, and that of the job
    assert not psutil.wait_procs(family, timeout=60)[1]
    stopped_after = last_round()
    federation.start("server")
    session = federation.session()
    wait_until(lambda: clients() == {"hospital-a", "hospital-b", "hospital-c"}, 120)
    second = session.submit_job(str(job))
    wait_until(lambda: last_round() >= stopped_after + 2, 120)
    federation.kill("hospital-b")
    wait_until(lambda: session.get_job_meta(second)["status"].startswith("FINISHED"), 200)
    assert session.get_job_meta(second)["status"] == "FINISHED:COMPLETED"
    results = Path(session.download_job_result(second)) / "workspace" / "flaretune"
    session.close()

    rounds = read_summary(results)["rounds"]
    assert [r["round"] for r in rounds] == list(range(31))
    assert all(r["clients"] == ["hospital-a", "hospital-b"] for r in rounds[: stopped_after + 1])
    assert rounds[stopped_after + 1]["clients"] == ["hospital-a", "hospital-b", "hospital-c"]
    assert rounds[-1]["clients"] == ["hospital-a", "hospital-c"]
    reasons = [r["excluded"]["hospital-b"] for r in rounds if r["excluded"]]
    assert reasons[0] == "no reply (its own log says why)"
    assert set(reasons[1:]) == {"gone: nothing was heard of it for long"}


# ---- a federation without faults ----

TINY = ["--n_prompt_tokens", "3", "--intrinsic_dim", "12", "--k_shot", "12", "--local_iter", "2", "--dtype", "float32"]


@pytest.fixture
def ended(environment, tmp_path):
    """The environment of processes that end with the test, those too that NVFlare would start anew."""
    yield {**environment, processes.MARK: str(tmp_path)}
    processes.end_all(tmp_path)


def test_proof_of_concept_federation(run, ended, folders, tmp_path):
    """A server and three clients as processes of their own, over mutual TLS, watched; results come back by download.

    By the command in the guide, for another model, other texts and fewer rounds.
    """
    guide = (REPOSITORY / "docs" / "operations" / "federation.md").read_text(encoding="utf-8")
    command = shlex.split(re.search(r"^python (jobs/fedbpt_job\.py .*--env poc .*)$", guide, re.MULTILINE)[1])
    clients = command[command.index("--clients") + 1].split(",")
    output = tmp_path / "out"
    command = [sys.executable, *command, "--output", str(output), "--task_name", "sst2"]
    command += ["--model_name", folders["llama"], "--dataset", folders["data"], *TINY, "--num_rounds", "10"]
    files = {"stdout": (tmp_path / "said").open("wb"), "stderr": subprocess.STDOUT}
    job = subprocess.Popen(command, cwd=REPOSITORY, env=ended, **files)
    watch, watched = [sys.executable, "-m", "flaretune", "watch", "--json"], []
    while job.poll() is None and not watched:  # until the job is there; its clients then take seconds to start
        for kit in (tmp_path / "poc").glob("*/prod_00/admin@nvidia.com"):
            looked = run(*watch, "--startup_kit", kit, "--once")
            watched += [json.loads(looked.stdout)] if looked.returncode == 0 else []
    assert watched, (tmp_path / "said").read_text(encoding="utf-8")[-3000:]
    with (tmp_path / "looks").open("w") as looks:
        watcher = subprocess.Popen([*watch, "--startup_kit", kit, "--interval", "0.5"], env=ended, stdout=looks)
        job.wait()
        watcher.kill()
        watcher.wait()
    watched += [json.loads(look) for look in (tmp_path / "looks").read_text(encoding="utf-8").split("\n")[:-1]]
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert job.returncode == 0, said[-3000:]
    seen = [look for look in watched if look["rounds"]]
    assert seen, watched
    assert set(seen[-1]["clients"]) == set(clients)
    assert all(ago is not None and ago < 60 for ago in seen[-1]["clients"].values())
    summary = read_summary(output)
    assert [r["clients"] for r in summary["rounds"]] == [clients] * 11
    for look in seen:
        shown = [(r["round"], r["accuracy"], r["bytes_up"]) for r in look["rounds"]]
        assert shown == [(r["round"], r["accuracy"], r["bytes_up"]) for r in summary["rounds"]][: len(shown)]
    assert summary["bytes_up_per_client_round"] > 1000
    assert load_prompt(summary["artifact"]).point.shape == (12,)
