"""FedBPT sites without a model, honest and other ones: a script for real processes, and the same in a test's own.

A point's prompt is the better the nearer it is to 1 in all coordinates. Sites misbehave by their names, see `FAULTS`.
The test of real processes names the server's results in $FLARETUNE_TEST_RESULTS: a slow site waits until the server has
finished a round without it, and a late one until the slow one has begun to.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from flaretune.config.options import as_dict, build
from flaretune.flare import fedbpt_client, fedbpt_messages, messages
from flaretune.methods.fedbpt.client import FedBPTSite, Labelled, SearchSettings
from flaretune.tasks.spec import load_task

LABELS = np.arange(20) % 2
SIGMA = 1.0
SLOW_HAS_BEGUN = "slow_has_begun"  # a file


class Nearness:
    """Answers logits (0, 0) at a distance of √d from the best point, the right class's the higher the nearer."""

    example_forwards = 0

    def label_logits(self, points: np.ndarray, labels: np.ndarray) -> np.ndarray:
        self.example_forwards += len(points) * len(labels)
        right = 3 * (1 - np.square(points - 1).mean(axis=1))  # (λ,)
        return (right[:, None, None] * np.eye(2)[labels][None]).astype(np.float32)


def open_site(config, name: str, sites):
    """In place of `fedbpt_client.open_site`."""
    data = Labelled(LABELS, LABELS)
    settings = build(SearchSettings, {**as_dict(config), "popsize": config.popsize})
    site = FedBPTSite(name, load_task("sst2"), Nearness(), data, data, data, None, settings)
    facts = SimpleNamespace(kind="masked", hidden_size=8, model_type="light", dtype="float32")
    prompted = SimpleNamespace(facts=facts, zero_shot_logits=lambda _test: np.zeros((len(LABELS), 2)))
    return site, prompted, SimpleNamespace(test=LABELS)


def damage(answer, round_number: int) -> None:
    """Another thing in every round that no honest site sends."""
    params, d = answer.params, answer.params["mean"].size
    if round_number == 1:
        params["mean"] = np.full(d, np.nan, dtype=np.float32)
    elif round_number == 2:
        params["fitness"] = np.array([-np.inf])
    elif round_number == 3:
        params["mean"] = np.zeros(d + 1, dtype=np.float32)
    elif round_number == 4:
        answer.meta["flaretune"]["schema"] = 999
    elif round_number == 5:
        params["fitness"] = np.array([-1e9])


def lie(answer, round_number: int) -> None:
    """The best fitness that can be, a million σ away, with the step size that this takes."""
    answer.params["fitness"] = np.array([0.0])
    answer.params["mean"] = np.full(answer.params["mean"].size, -1e6 * SIGMA, dtype=np.float32)
    answer.params["sigma_square_sum"] = np.array([1e12])


FAULTS = {"damaged": damage, "liar": lie, "liar-2": lie}


def misbehave(site: str, task: str, round_number: int, answer):
    """What a site sends in place of its honest answer (`federation.Change`)."""
    if task == fedbpt_messages.SEARCH and site in FAULTS:
        FAULTS[site](answer, round_number)
    return answer


def not_ready(answer):
    """A setup answer of a site that cannot start yet."""
    answer.meta.clear()
    return answer


def wait_for(file: str) -> None:
    """Until a file is there in the server's results."""
    while not (Path(os.environ["FLARETUNE_TEST_RESULTS"]) / file).exists():
        time.sleep(0.1)


class LightTasks(fedbpt_client.FedBPTTasks):
    """Answers of real processes: ``late`` gets ready in the second round, in which ``slow`` does not answer in time,
    and ``killed`` does not survive the third. Rounds take $FLARETUNE_TEST_SECONDS, so that a test can do something."""

    _setups = 0

    def handlers(self):
        def of(task, honest):
            def handler(message, name, sites):
                round_number = message.current_round
                if (name, task) == ("late", messages.SETUP):
                    self._setups += 1
                    if self._setups > 1:  # the first answer, which no server can read, is there at once
                        wait_for(SLOW_HAS_BEGUN)
                if (name, task, round_number) == ("slow", fedbpt_messages.SEARCH, 2):
                    (Path(os.environ["FLARETUNE_TEST_RESULTS"]) / SLOW_HAS_BEGUN).touch()
                    wait_for("rounds/round_0002.npz")
                if (name, task, round_number) == ("killed", fedbpt_messages.SEARCH, 3):
                    os.kill(os.getpid(), signal.SIGKILL)
                if task == fedbpt_messages.SEARCH:
                    time.sleep(float(os.environ.get("FLARETUNE_TEST_SECONDS", "0")))
                answer = misbehave(name, task, round_number, honest(message, name, sites))
                return not_ready(answer) if (name, task, self._setups) == ("late", messages.SETUP, 1) else answer

            return handler

        return {task: of(task, honest) for task, honest in super().handlers().items()}


if __name__ == "__main__":
    fedbpt_client.open_site = open_site
    fedbpt_client.FedBPTTasks = LightTasks
    fedbpt_client.main()
