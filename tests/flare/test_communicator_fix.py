"""A task that is sent to a client twice is listed once, with NVFlare's own communicator."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from nvflare.apis.client import Client
from nvflare.apis.controller_spec import Task, TaskCompletionStatus
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.wf_comm_server import WFCommServer
from nvflare.apis.shareable import Shareable

from flaretune.flare.fixes import communicator as communicator_fix

LATE, LATER = Client("late", "token"), Client("later", "token")


@pytest.fixture
def communicator():
    @contextmanager
    def new_context():
        yield FLContext()

    made = WFCommServer()
    made._engine = SimpleNamespace(new_context=new_context)
    return made


@pytest.fixture
def initialize(communicator):
    """The first task of two clients that are late, open beside a later one of a third."""
    task = Task("initialize", Shareable())
    communicator.broadcast(task, FLContext(), [LATE.name, LATER.name], min_responses=0)
    communicator.broadcast(Task("fit", Shareable()), FLContext(), ["in time"], min_responses=0)
    return task


def fetch_twice(communicator) -> str:
    """The task that a client was sent both times."""
    (first, first_id, _), (again, again_id, _) = (
        communicator.process_task_request(LATE, FLContext()) for _ in range(2)
    )
    assert (first, again, again_id) == ("initialize", "initialize", first_id)
    return first_id


def reply(communicator, client: Client, task_id: str) -> None:
    communicator.process_submission(client, "initialize", task_id, Shareable(), FLContext())
    communicator.check_tasks()


def test_nvflare_alone_fails(communicator, initialize):
    task_id = fetch_twice(communicator)
    with pytest.raises(KeyError, match=task_id):  # ends the thread that ends tasks
        reply(communicator, LATE, task_id)
    assert initialize.completion_status == TaskCompletionStatus.OK  # without the other's reply


def test_a_task_is_listed_once_and_waits_for_every_reply(communicator, initialize):
    communicator_fix.correct(communicator)
    task_id = fetch_twice(communicator)
    reply(communicator, LATE, task_id)
    assert initialize.completion_status is None
    name, later_id, _ = communicator.process_task_request(LATER, FLContext())
    assert name == "initialize"
    reply(communicator, LATER, later_id)
    assert initialize.completion_status == TaskCompletionStatus.OK
    assert [c.client.name for c in initialize.client_tasks] == [LATE.name, LATER.name]
    assert communicator._task_check_period == communicator_fix.CHECK_PERIOD


def test_another_communicator_is_left_as_it_is():
    other = SimpleNamespace()
    communicator_fix.correct(other)
    assert vars(other) == {}
