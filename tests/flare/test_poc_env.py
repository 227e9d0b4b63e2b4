"""A proof of concept whose server is slow to answer; test_fault_jobs.py runs a real one."""

from types import SimpleNamespace

import pytest
from nvflare.apis.fl_exception import FLCommunicationError
from nvflare.recipe import PocEnv

from flaretune.flare import poc_env
from flaretune.flare.poc_env import PatientPocEnv


@pytest.mark.parametrize("silent_for", [0, 1, 5, poc_env.TRIES, poc_env.TRIES + 1])
def test_the_server_is_asked_until_it_answers(silent_for, monkeypatch, tmp_path):
    monkeypatch.setenv("NVFLARE_POC_WORKSPACE", str(tmp_path))
    asked, stopped = [], []

    def submit(job):
        asked.append(job)
        if len(asked) <= silent_for:
            raise FLCommunicationError("no answer")
        return "id"

    env = PatientPocEnv(clients=["hospital-a"], num_clients=1)
    monkeypatch.setattr(PocEnv, "deploy", lambda self, job: submit(job))
    monkeypatch.setattr(env, "_get_session_manager", lambda: SimpleNamespace(submit_job=submit))
    monkeypatch.setattr(env, "stop", lambda clean_up: stopped.append(clean_up))
    monkeypatch.setattr(poc_env, "time", SimpleNamespace(sleep=lambda seconds: None))
    if silent_for > poc_env.TRIES:
        with pytest.raises(RuntimeError, match=r"does not answer \(no answer\)"):
            env.deploy("job")
        assert stopped == [True]
    else:
        assert env.deploy("job") == "id"
        assert not stopped
        assert len(asked) == silent_for + 1
