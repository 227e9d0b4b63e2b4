"""What is shown of a running job; test_fault_jobs.py watches a real one."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from nvflare.fuel.flare_api.api_spec import JobNotFound, JobNotRunning, NoConnection

from flaretune.engine.errors import SERVER, Failure, record_failure
from flaretune.engine.progress import TOPIC, Progress
from flaretune.engine.records import RoundRecord
from flaretune.engine.results import RESULTS
from flaretune.engine.summary import round_lines, summary, write_json
from flaretune.errors import UserError
from flaretune.flare import watch as watching
from flaretune.tasks.metrics.base import Estimate


def a_record(round_number, accuracy=0.75):
    return RoundRecord(
        round=round_number, seconds=3.0, overhead_seconds=0.5, clients=["a", "b"], bytes_down=2700.0, bytes_up=3100.0,
        queries=80, example_forwards=2560, memory_mb=900.0, accuracy=accuracy, metrics={"sigma": 1.0},
    )  # fmt: skip


def test_progress_is_plain_values_of_now():
    started = time.time()
    progress = Progress("FedBPT", ["a", "b", "c"], 12, lambda: {"a": started - 5, "b": started})
    progress.sending("initialize", 0)
    progress.finished(a_record(0), "accuracy", 0)
    progress.sending("fit", 1)
    told = progress.tell()
    assert (told["task"], told["round"], told["num_rounds"]) == ("fit", 1, 12)
    assert told["clients"]["a"] - told["clients"]["b"] == pytest.approx(5, abs=0.2)  # both are rounded
    assert told["clients"]["b"] >= 0
    assert told["clients"]["c"] is None
    assert [r["round"] for r in told["rounds"]] == [0]
    assert told["sent_seconds_ago"] >= 0


class Session:
    """An administrator's session with a server that answers from a script."""

    def __init__(self, *looks):
        self.looks = list(looks)
        self.closed = False
        self.leave = lambda folder: None
        self.deployed = ["server: OK", "a: OK"]

    def list_jobs(self):  # with the keys that NVFlare 2.9 gives
        return [
            {"job_id": "old", "submit_time": "2026-01-01T19:27:33+00:00"},
            {"job_id": "new", "submit_time": "2026-01-02T08:00:00+00:00"},
        ]

    def get_job_meta(self, job_id):
        if isinstance(self.looks[0], Exception):
            raise self.looks[0]
        if job_id != "new":
            raise JobNotFound("no such job")
        return {"name": "reviews", "status": self.looks[0][0], "job_deploy_detail": self.deployed}

    def do_app_command(self, job_id, topic, data):
        assert (job_id, topic) == ("new", TOPIC)
        told = self.looks[0][1]
        if isinstance(told, Exception):
            raise told
        return told

    def download_job_result(self, job_id, destination):
        assert job_id == "new"
        print("downloading")  # as NVFlare's does
        if isinstance(self.leave, Exception):
            raise self.leave
        folder = Path(destination) / job_id
        self.leave(folder / "workspace" / RESULTS)
        return str(folder)

    def close(self):
        self.closed = True


def leaving(*rounds, failures=()):
    """What a job has left at the server, as a function of its folder."""

    def leave(folder):
        folder.mkdir(parents=True)
        for failure in failures:
            record_failure(folder, Failure(*failure))
        if rounds:
            about = {"method": "FedBPT", "artifact": "best_prompt.safetensors", "artifact_kind": "prompt"}
            task = {"task": "sst2", "metric": "accuracy", "metric_title": "accuracy"}
            write_json(
                summary(rounds, 0, Estimate(0.5, None), 9.0, **about, **task, clients=["a", "b"]),
                folder / "summary.json",
            )

    return leave


def line_of(*rounds):
    """The progress line of the last of these rounds."""
    told = {"method": "FedBPT", "metric_title": "accuracy", "clients": ["a", "b"], "best_round": 0}
    return round_lines({**told, "rounds": [asdict(record) for record in rounds]})[rounds[-1].round]


def running(*rounds):
    progress = Progress("FedBPT", ["a"], 2, dict)
    for record in rounds:
        progress.finished(record, "accuracy", 0)
    return ("RUNNING", progress.tell())


def connect(username, session):
    assert username == "anna@coordinator.example"
    return session


@pytest.fixture
def watched(monkeypatch, tmp_path):
    """Watch a scripted job; returns the exit status and the session."""

    def run(*looks, job_id="", as_json=False, once=False, leave=None, deployed=None):
        session = Session(*looks)
        session.deployed = deployed or session.deployed
        session.leave = leave or session.leave
        monkeypatch.setattr(watching, "administrator_of", lambda kit: "anna@coordinator.example")
        monkeypatch.setattr(watching, "new_secure_session", lambda username, kit: connect(username, session))
        pause = SimpleNamespace(sleep=lambda seconds: session.looks.pop(0))
        monkeypatch.setattr(watching, "time", pause)
        return watching.watch(str(tmp_path), job_id, 5, as_json, once), session

    return run


def test_every_round_is_told_once_until_the_job_ends(watched, capsys):
    status, session = watched(
        ("DISPATCHED", None), running(), running(a_record(0)), running(a_record(0), a_record(1, None)),
        ("RUNNING", JobNotRunning("it has just ended")), ("FINISHED:COMPLETED", None),
    )  # fmt: skip
    assert status == 0
    assert session.closed
    said = capsys.readouterr().out.splitlines()
    rounds = [line for line in said if line.startswith("round ")]
    assert [line.split()[1] for line in rounds] == ["0/2", "1/2"]
    assert "accuracy 0.750" in rounds[0]
    assert "2.7 kB down, 3.1 kB up" in rounds[0]
    assert "accuracy   -  " in rounds[1]
    assert said[0] == "reviews (new): DISPATCHED"
    assert said[-1] == "reviews (new): FINISHED:COMPLETED"
    assert any("heard of a never" in line for line in said)


@pytest.mark.parametrize("ended", ["FINISHED:EXECUTION_EXCEPTION", "FINISHED:ABORTED", "FAILED_TO_RUN"])
def test_a_job_that_ended_otherwise_is_no_success(watched, ended):
    assert watched((ended, None))[0] == 1


def test_a_server_that_is_late_is_asked_again(watched, capsys):
    silent = [NoConnection("too late")] * watching.MISSES
    end = ("FINISHED:COMPLETED", None)
    assert watched(running(a_record(0)), *silent, running(a_record(0)), *silent, end)[0] == 0
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if line.startswith("round ")]) == 1  # told once
    with pytest.raises(UserError, match=r"job new: its server does not answer \(too late\)"):
        watched(running(), *silent, NoConnection("too late"), end)


@pytest.mark.parametrize(
    ("of_nvflare", "said"),
    [
        ("user is not authorized for app_command", "user is not authorized for app_command"),
        ("error: rc='BAD_REQUEST_DATA' reason='no app command func for topic flaretune.progress'", "it starts"),
        ("no result", "its process starts or ends"),
    ],
)
def test_why_there_is_no_progress_is_said(watched, capsys, of_nvflare, said):
    watched(("RUNNING", RuntimeError(of_nvflare)), ("FINISHED:COMPLETED", None))
    assert capsys.readouterr().out.splitlines()[0] == f"reviews (new): RUNNING (no progress: {said})"


def test_rounds_between_the_last_look_and_the_end_are_read_in_its_results(watched, capsys):
    rounds = [a_record(number) for number in range(3)]
    watched(running(rounds[0]), ("FINISHED:COMPLETED", None), leave=leaving(*rounds))
    told = capsys.readouterr()
    said = told.out.splitlines()
    assert said[-3:] == [
        line_of(*rounds[:2]).replace("1/1", "1/2"),
        line_of(*rounds),
        "reviews (new): FINISHED:COMPLETED",
    ]
    assert len([line for line in said if line.startswith("round 0/2")]) == 1
    assert told.err == "downloading\n"


def test_a_job_that_was_never_seen_running_tells_its_rounds(watched, capsys):
    watched(("FINISHED:COMPLETED", None), leave=leaving(a_record(0)))
    assert capsys.readouterr().out.splitlines() == [line_of(a_record(0)), "reviews (new): FINISHED:COMPLETED"]


@pytest.mark.parametrize("rounds", [[], [a_record(0)]], ids=["before the first round", "after it"])
def test_why_a_job_failed_is_said(watched, capsys, rounds):
    why = "round 1: 1 of 3 clients gave a usable fit reply and 3 are needed"
    left = leaving(*rounds, failures=[("b", "data_path /no: there is no such file"), (SERVER, why), (SERVER, why)])
    assert watched(("FINISHED:EXECUTION_EXCEPTION", None), leave=left)[0] == 1
    assert capsys.readouterr().out.splitlines() == [
        *map(line_of, rounds),
        "reviews (new): FINISHED:EXECUTION_EXCEPTION",
        "b said: data_path /no: there is no such file",
        f"server said: {why}",
    ]


def test_who_refused_a_job_is_said(watched, capsys):
    refusals = ["a: BYOC not permitted", "num_ok_sites 0 < required_min_sites 1"]
    deployed = ["server: OK", *refusals]
    watched(("FINISHED:FAILED_TO_RUN", None), deployed=deployed, leave=RuntimeError("none"))
    assert capsys.readouterr().out.splitlines() == [
        "reviews (new): FINISHED:FAILED_TO_RUN",
        *(f"not deployed: {refusal}" for refusal in refusals),
        "its results cannot be read: none",
    ]


def test_results_that_are_not_given_change_nothing_else(watched, capsys):
    assert watched(("FINISHED:COMPLETED", None), leave=RuntimeError("not authorized"))[0] == 0
    assert capsys.readouterr().out.splitlines() == [
        "reviews (new): FINISHED:COMPLETED", "its results cannot be read: not authorized"
    ]  # fmt: skip


def test_once(watched, capsys):
    assert watched(running(a_record(0)), once=True)[0] == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_mistakes_are_one_sentence(watched, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="job gone: no such job"):
        watched(running(), job_id="gone")
    with pytest.raises(UserError, match="there is no such folder"):
        watching.watch(str(tmp_path / "none"), "", 5, False, True)

    def refuse(username, kit):
        raise RuntimeError("nobody listens")

    monkeypatch.setattr(watching, "new_secure_session", refuse)
    with pytest.raises(UserError, match="no session with its server \\(nobody listens\\)"):
        watching.watch(str(tmp_path), "", 5, False, True)


def test_a_server_that_does_not_tell_its_jobs_is_one_sentence(watched, monkeypatch):
    def silent(self):
        raise NoConnection("too late")

    monkeypatch.setattr(Session, "list_jobs", silent)
    with pytest.raises(UserError, match=r"its server does not answer \(too late\)"):
        watched(running())
