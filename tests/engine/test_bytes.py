"""Bytes of a round: what one client was sent and what one client sent, whoever was lost and wherever a run resumed."""

import numpy as np
import pytest

from flaretune.engine import codec
from flaretune.methods.message import Message
from tests.engine.in_process import Told, no_replies_from
from tests.engine.whole_jobs import run_small_job


def n_bytes(message: Message) -> int:
    return sum(values.nbytes for values in message.arrays.values())


def assert_bytes_are_a_client_s(told: Told, rounds: range) -> None:
    """Those of the fit messages, all of which are alike in a round."""
    by_round = {record.round: record for record in told.records}
    for number in rounds:
        [task] = [m for task, n, m in told.tasks if (task, n) == (codec.FIT, number)]
        replies = [n_bytes(m) for _, task, n, m in told.replies if (task, n) == (codec.FIT, number)]
        found = by_round[number].bytes_down, by_round[number].bytes_up
        assert found == pytest.approx((n_bytes(task), np.mean(replies)), abs=0.05)


def test_a_client_that_does_not_reply_was_sent_its_part_all_the_same(roberta, tmp_path):
    def lost(client, task, round_number, reply):
        return None if (client, task) == ("site-2", codec.FIT) else reply

    told = run_small_job("fedbpt", roberta, tmp_path, "lost", change=lost)
    assert [record.clients for record in told.records[1:]] == [["site-1"]] * 2
    assert_bytes_are_a_client_s(told, range(1, 3))


def test_initializing_to_resume_a_run_is_not_counted_for_the_round_that_follows(roberta, tmp_path):
    run = {"checkpoint": str(tmp_path / "checkpoint")}
    run_small_job("fedbpt", roberta, tmp_path, "stopped", change=no_replies_from(2), **run)
    told = run_small_job("fedbpt", roberta, tmp_path, "on", **run)
    assert [n for task, n, _ in told.tasks if task == codec.FIT] == [2]
    assert_bytes_are_a_client_s(told, range(2, 3))


def test_a_client_that_is_ready_late_is_one_of_those_that_sent_something(roberta, tmp_path):
    missed = []

    def late(client, task, round_number, reply):
        if (client, task) == ("site-2", codec.INITIALIZE) and not missed:
            return missed.append(client)
        return reply

    told = run_small_job("lpfl", roberta, tmp_path, "late", change=late)
    assert told.records[1].clients == ["site-1", "site-2"]
    sent = {client: n_bytes(m) for client, task, _, m in told.replies if task == codec.INITIALIZE}
    assert told.records[0].bytes_up == pytest.approx(np.mean(list(sent.values())), rel=0.01)
    assert_bytes_are_a_client_s(told, range(1, 3))
