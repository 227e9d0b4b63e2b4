"""A client of any method as a handler of messages: opens what it needs, works, and noises what it sends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from flaretune.config.client import ClientConfig
from flaretune.engine import codec
from flaretune.errors import UserError
from flaretune.host import give_memory_back
from flaretune.methods.base import Client, ClientContext, Method
from flaretune.methods.exchanged import EvaluateResult, FitRequest, FitResult, InitializeResult
from flaretune.methods.message import Message, readable
from flaretune.privacy.release import Releases
from flaretune.tasks.evaluation import Counters, Evaluation

Read = TypeVar("Read")


class Worker:
    """Handles a job's tasks at a client.

    Args:
        method: the job's.
        config: the client's options.
        name: of the client.
        folder: what a process that is started anew needs lies there, by job.
        beyond: the same for a run that outlives its job, by run.
    """

    def __init__(self, method: Method, config: ClientConfig, name: str, folder: Path, beyond: Path):
        self._method, self._config, self._name = method, config, name
        self._folder, self._beyond = folder, Path(config.state_dir).expanduser() if config.state_dir else beyond
        self._client: Client | None = None
        self._releases: Releases | None = None

    def __call__(self, task: str, message: Message) -> Message:
        """The reply to a task.

        Raises:
            UserError: whatever the user can correct.
            FloatingPointError: the model's numbers are not finite.
        """
        clients = read(codec.read_clients, message)
        if task not in codec.TASKS:
            raise UserError(f"the server sent the task {task!r}, which this version does not know")
        if self._name not in clients:
            raise UserError(f"the server's clients, {', '.join(clients)}, are without this one, {self._name}")
        handle = {codec.INITIALIZE: self._initialize, codec.FIT: self._fit, codec.EVALUATE: self._evaluate}[task]
        try:
            return handle(message)
        finally:
            give_memory_back()  # what a round's training leaves in pieces would add up from round to round

    def _initialize(self, message: Message) -> Message:
        started = time.monotonic()
        releases, (_, after_round) = self._noises(message), read(codec.read_run, message)
        if releases:
            releases.count_at_least(self._method.releases(after_round, 0))
            releases.check(self._method.releases(read(codec.read_num_rounds, message), after_round))
        self._client = None  # of an earlier initialization that the server did not wait for: not two models at a time
        self._client = self._open(message, takes_over=False)
        result = self._client.initialize()
        seconds = time.monotonic() - started  # of loading too
        result = replace(result, counters=replace(result.counters, seconds=seconds))
        return codec.initialize_reply(self._noised_initialize(result, releases) if releases else result)

    def _fit(self, message: Message) -> Message:
        request = read(codec.read_fit_request, message)
        if request.step == codec.CALIBRATE:
            return self._log_probs(message, request)
        result = self._opened(message).fit(request)
        if releases := self._noises(message):
            arrays, numbers, queries = self._client.noised(result, request, releases)
            counters = private_counters(releases.count, queries)
            evaluation = result.evaluation and private_evaluation(result.evaluation, self._test_is_public)
            result = FitResult(arrays, numbers, counters, evaluation)
        return codec.fit_reply(result)

    def _log_probs(self, message: Message, request: FitRequest) -> Message:
        if self._config.calibrate == "none":  # nor with noise, which excludes it
            raise UserError("the server asks for what a prior is made from, and this client has --calibrate none")
        return codec.calibrate_reply(self._opened(message).log_probs(request.arrays))

    def _evaluate(self, message: Message) -> Message:
        arrays = read(codec.read_evaluate_request, message)
        result = self._opened(message).evaluate(arrays)
        if releases := self._noises(message):
            evaluation = private_evaluation(result.evaluation, self._test_is_public)
            result = EvaluateResult(evaluation, private_counters(releases.count))
        return codec.evaluate_reply(result)

    def _opened(self, message: Message) -> Client:
        if self._client is None:  # this process was started anew, as the simulator does with fewer threads than clients
            self._client = self._open(message, takes_over=True)
        self._client.calibrate(read(codec.read_prior, message))
        return self._client

    def _open(self, message: Message, takes_over: bool) -> Client:
        _, after_round = read(codec.read_run, message)
        clients = read(codec.read_clients, message)
        context = ClientContext(self._name, clients, self._state_folder(message), after_round, takes_over)
        return self._method.client(self._config, context)

    def _state_folder(self, message: Message) -> Path:
        """Where this client keeps what its next process needs: with the job, or, if the run is resumable, beyond it."""
        run, _ = read(codec.read_run, message)
        return (self._beyond / run if run else self._folder) / self._name

    @property
    def _test_is_public(self) -> bool:
        return bool(self._config.dp_public_test)

    def _noises(self, message: Message) -> Releases | None:
        """What noises and counts this client's results; None where they are not noised."""
        if self._config.dp_noise and self._releases is None:
            self._releases = Releases(self._config, self._state_folder(message))
        return self._releases

    def _noised_initialize(self, result: InitializeResult, releases: Releases) -> InitializeResult:
        """Every field is named, so that one that is added does not slip through."""
        return InitializeResult(
            settings=result.settings,
            n_train=0,
            zero_shot=result.zero_shot if self._test_is_public else None,
            evaluation=private_evaluation(result.evaluation, self._test_is_public),
            counters=private_counters(releases.count),
            log_probs=None,
            dtype=result.dtype,
            arrays=result.arrays,  # drawn from the job's seed, or of neutral texts
        )


def read(reader: Callable[[Message], Read], message: Message) -> Read:
    """What a reader of `codec` makes of the server's message, or one sentence if it makes nothing of it."""
    with readable():
        return reader(message)


def private_counters(releases: int, queries: int = 0) -> Counters:
    """Counters without what depends on the number and the length of texts, of which time and memory do too.

    Args:
        releases: noised results so far.
        queries: candidates evaluated, where the options alone say how many.
    """
    return Counters(queries=queries, example_forwards=0, seconds=0.0, memory_mb=0.0, releases=releases)


def private_evaluation(evaluation: Evaluation, public_test: bool) -> Evaluation:
    """Without validation texts, which are the client's; counts on test texts stay where these are public."""
    test = evaluation.test if public_test else None
    return Evaluation(np.zeros_like(evaluation.validation), 0.0, 0, test)
