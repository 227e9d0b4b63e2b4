"""A job, from the server's side: the rounds of any method over any transport.

A round's result is evaluated by the clients on the way into the next round: one task a round, not two, unless the
method takes several steps or makes a new prior. Nothing about model, task or data is told to the server: the clients
report what they were told, and it checks that they agree.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flaretune.config.options import as_dict
from flaretune.config.server import ServerConfig
from flaretune.engine import codec
from flaretune.engine.cohort import Cohort
from flaretune.engine.errors import JobFailed
from flaretune.engine.joint_prior import joint_prior
from flaretune.engine.progress import Progress
from flaretune.engine.records import RoundRecord, round_line
from flaretune.engine.resume import ResumableRun, warn_of_other_formats
from flaretune.engine.run_folder import RunFolder
from flaretune.engine.transport import Transport
from flaretune.errors import UserError
from flaretune.methods.base import Method
from flaretune.methods.exchanged import FitRequest, FitResult, InitializeResult
from flaretune.methods.message import Message
from flaretune.privacy.accountant import account, sentence
from flaretune.tasks.calibration import LogProbSums
from flaretune.tasks.evaluation import Counters, Evaluation, add_counters, limit_evaluations, peak_memory_mb
from flaretune.tasks.metrics.base import Estimate
from flaretune.tasks.metrics.registry import find_metric
from flaretune.versions import untested

log = logging.getLogger("flaretune.server")


@dataclass
class Work:
    """What the steps of a round came to.

    Attributes:
        results: of the step that is the method's own ("") or, without one, of the first, by client.
        counters: what all steps cost, by client.
        excluded: clients without a usable reply to one of them, and why.
        clipped: clients whose updates were clipped.
    """

    results: Mapping[str, FitResult] = field(default_factory=dict)
    counters: Mapping[str, Counters] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    clipped: list[str] = field(default_factory=list)


class Job:
    """A job of a method.

    Args:
        method: whose.
        config: the server's options.
        transport: to the clients.
        folder: of the results; made if it is not there.
        show: is called with every finished round.

    Attributes:
        progress: what tells how far it is.

    Raises:
        JobFailed: the checkpoints cannot be used.
    """

    def __init__(
        self,
        method: Method,
        config: ServerConfig,
        transport: Transport,
        folder: Path,
        show: Callable[[RoundRecord], None] = lambda _: None,
    ):
        self._started = time.monotonic()
        self._method, self._config, self._transport, self._path, self._show = method, config, transport, folder, show
        self._strategy = method.strategy(config)
        self._rule = self._strategy.rule
        self._prior: np.ndarray | None = None
        self._rounds = self._strategy.num_rounds
        self.progress = Progress(method.title, transport.clients(), self._rounds, transport.last_heard)

    def run(self) -> None:
        """Initialize the clients, work round by round, and close with an evaluation.

        Raises:
            JobFailed: one sentence says why.
            Aborted: whoever runs the job has ended it.
        """
        if sentence := untested():
            log.warning(sentence)
        try:
            self._run_rounds()
        except UserError as error:
            raise JobFailed(str(error)) from error
        except OSError as error:
            raise JobFailed(f"the results cannot be written: {error.strerror or error} ({error.filename})") from error

    def _run_rounds(self) -> None:
        strategy = self._strategy
        self._run = ResumableRun(self._config.checkpoint, self._rounds)
        self._cohort = Cohort(self._transport, self._config, self._run.releases_before, self.progress)
        initialized = self._initialize()
        record, evaluated = self._first_record(initialized)
        if evaluated:  # before a prior was known
            results = initialized if strategy.start_classifies else {}
            self._finish(record, {client: result.evaluation for client, result in results.items()})

        for round_number in range(record.round + 1, self._rounds + 1):
            started = time.monotonic()
            joined = self._let_in(round_number)
            # when the clients were initialized, if all of them were
            is_calibrated = round_number == 1 and strategy.starts_as_initialized and not joined
            work = Work() if is_calibrated else self._recalibrate(round_number)
            self._work(work, round_number, evaluated=None if evaluated else record)
            evaluated = False
            record = self._record(round_number, work, work.counters, started)
            self._note_clipped(record, work.clipped)
            arrays, state = strategy.state()
            prior = None if self._prior is None else self._prior.tolist()
            self._run.save(record, self._folder, arrays, state, prior=prior, dtypes=self._cohort.dtypes)

        started = time.monotonic()
        self._let_in(self._rounds)
        self._recalibrate(self._rounds)
        message = codec.evaluate_message(self._common(), self._rounds, strategy.evaluated_arrays())
        read = partial(codec.read_evaluate_reply, task=self._task)
        last = self._cohort.send(codec.EVALUATE, self._rounds, message, read)
        record.seconds = round(record.seconds + time.monotonic() - started, 2)
        spent = self._spent(_counters(last))
        if spent["releases"] > record.releases:  # a result that came too late to count has been sent all the same
            record.releases, record.epsilon = spent["releases"], spent["epsilon"]
        self._finish(record, {client: result.evaluation for client, result in last.items()})
        privacy = self._folder.privacy()
        log.info("done: results in %s%s", self._path, f"; {sentence(privacy['privacy'])}" if privacy else "")

    # ---- the start ----

    def _initialize(self) -> dict[str, InitializeResult]:
        """Initialize the clients and the strategy; returns the results of the clients that take part."""
        cohort, run = self._cohort, self._run
        message = codec.initialize_message(self._common(), self._rounds)
        initialized = cohort.send(codec.INITIALIZE, 0, message, self._read_initialize)
        cohort.begin(initialized, message)
        settings = next(iter(initialized.values())).settings
        with run.taking_up():
            server = {name: value for name, value in as_dict(self._config).items() if name in self._method.kept_options}
            run.begin(settings, server, cohort.shares)
            resumed = run.resumed
            objections = self._strategy.start(initialized, resumed, self._path)
        for client, why in objections.items():
            cohort.exclude(client, 0, codec.INITIALIZE, why)
        cohort.clients = [client for client in cohort.clients if client not in objections]
        if len(cohort.clients) < cohort.needed:
            raise JobFailed(next(iter(objections.values())))
        return {client: initialized[client] for client in cohort.clients}

    def _first_record(self, initialized: Mapping[str, InitializeResult]) -> tuple[RoundRecord, bool]:
        """The record of the round that the job starts after, and whether its result has been evaluated."""
        settings = next(iter(initialized.values())).settings
        self._task, self._metric = settings["task"], find_metric(settings["task"]["metric"])
        self._zero_shot = [result.zero_shot for result in initialized.values()]
        server, zero_shot = as_dict(self._config), self._estimate(self._zero_shot)
        self._folder = RunFolder(self._path, self._method, settings, server, self._cohort.clients, zero_shot)
        earlier = self._run.earlier
        if earlier is None:
            work = Work()
            if self._strategy.starts_as_initialized:  # what an earlier run has left has another prior
                work.clipped = self._calibrate({client: result.log_probs for client, result in initialized.items()})
            self._work(work, 0)
            evaluated = self._strategy.starts_as_initialized and self._prior is None and not work.counters
            record = self._record(0, work, add_counters(_counters(initialized), work.counters), self._started)
            self._note_clipped(record, work.clipped)
            return record, evaluated
        self._cohort.take_bytes()  # initializing belongs to round 0, which the run has had
        with self._run.taking_up():
            state = earlier.state
            self._prior = None if state["prior"] is None else np.array(state["prior"])
            warn_of_other_formats(state["dtypes"], self._cohort.dtypes)
            for record in self._folder.restore(state["results"], earlier.artifact):
                self._tell(record)
            return RoundRecord(**state["record"]), False

    def _let_in(self, round_number: int) -> bool:
        if joined := self._cohort.let_in(round_number, self._read_initialize, self._strategy.objection):
            self._zero_shot += [result.zero_shot for result in joined]
            self._folder.zero_shot = self._estimate(self._zero_shot)
        return bool(joined)

    def _common(self) -> dict[str, Any]:
        return codec.task(self._cohort.shares, self._run.name, self._run.after_round, self._prior)

    def _read_initialize(self, reply: Message) -> InitializeResult:
        return codec.read_initialize_reply(reply, self._method)

    # ---- a round ----

    def _recalibrate(self, round_number: int) -> Work:
        """Make the prior anew for what the clients are sent next, where the method wants that."""
        if not self._strategy.recalibrates:
            return Work()
        arrays, numbers = self._strategy.configure(round_number, codec.CALIBRATE)
        request = FitRequest(round_number, arrays, numbers, evaluate=False, step=codec.CALIBRATE)
        read = partial(codec.read_calibrate_reply, task=self._task)
        message = codec.fit_message(self._common(), request)
        results = self._cohort.send(codec.FIT, round_number, message, read, step=codec.CALIBRATE)
        clipped = self._calibrate({client: result.log_probs for client, result in results.items()})
        return Work(counters=_counters(results), clipped=clipped)

    def _calibrate(self, log_probs: Mapping[str, LogProbSums | None]) -> list[str]:
        """Take the prior of what the clients have told; returns which of them were held to the others."""
        self._prior, clipped = joint_prior(log_probs, self._rule)
        return clipped

    def _work(self, work: Work, round_number: int, evaluated: RoundRecord | None = None) -> None:
        """Take a round's steps; in the first, the result of the round before is evaluated, if its record is given."""
        for step in self._strategy.steps(round_number):
            results = self._fit(round_number, step, evaluate=evaluated is not None)
            if evaluated:
                self._finish(evaluated, {client: result.evaluation for client, result in results.items()})
                evaluated = None
            if not work.results or not step:
                work.results = results
            work.counters = add_counters(work.counters, _counters(results))
            work.excluded |= self._cohort.excluded
            work.clipped += self._strategy.aggregate(round_number, step, results)

    def _fit(self, round_number: int, step: str, evaluate: bool) -> dict[str, FitResult]:
        arrays, numbers = self._strategy.configure(round_number, step)
        message = codec.fit_message(self._common(), FitRequest(round_number, arrays, numbers, evaluate, step))
        task = self._task if evaluate else None
        return self._cohort.send(
            codec.FIT,
            round_number,
            message,
            lambda reply: self._strategy.check(codec.read_fit_reply(reply, task), step),
        )

    def _record(self, round_number: int, work: Work, counters: Mapping[str, Counters], started: float) -> RoundRecord:
        """What is known of a round before its result is evaluated; what initializing costs is none of its queries."""
        seconds, spent = time.monotonic() - started, self._spent(counters)
        private = spent["epsilon"] is not None
        down, up = self._cohort.take_bytes()
        numbers, by_client = self._strategy.metrics(work.results if round_number else {}, private)
        excluded = {**self._cohort.excluded, **work.excluded}
        return RoundRecord(
            round=round_number,
            seconds=round(seconds, 2),
            overhead_seconds=None if private else round(seconds - max(c.seconds for c in counters.values()), 2),
            clients=[client for client in self._cohort.shares if client in counters and client not in excluded],
            bytes_down=down,
            bytes_up=up,
            queries=sum(c.queries for c in work.counters.values()),
            example_forwards=sum(c.example_forwards for c in work.counters.values()),
            memory_mb=max(c.memory_mb for c in counters.values()),
            server_memory_mb=peak_memory_mb(),
            excluded=excluded,
            metrics=dict(numbers),
            client_metrics={name: dict(values) for name, values in by_client.items()},
            **spent,
        )

    def _spent(self, counters: Mapping[str, Counters]) -> dict[str, Any]:
        """What noised results have cost until now: entries of a `RoundRecord`."""
        releases = max(self._folder.releases, *(c.releases for c in counters.values()))
        told = account(self._strategy.settings["options"], releases)
        return {"releases": releases, "epsilon": told["epsilon"]} if told else {"releases": 0, "epsilon": None}

    def _note_clipped(self, record: RoundRecord, clients: list[str]) -> None:
        record.clipped = clients = list(dict.fromkeys(clients))
        if clients:
            log.warning(
                "round %d: the update of %s is far beyond those of the others: it is clipped (--aggregation %s)",
                *(record.round, ", ".join(clients), self._config.aggregation),
            )

    def _finish(self, record: RoundRecord, evaluations: Mapping[str, Evaluation]) -> None:
        """Complete a round's record by the evaluation of its result, keep that if it is the best, and tell of it."""
        weighed = limit_evaluations(evaluations, self._rule).values()
        n_validation = sum(e.n_validation for e in weighed)
        record.accuracy, record.standard_error = self._estimate([e.test for e in evaluations.values()])
        record.validation_accuracy, record.validation_standard_error = self._estimate([e.validation for e in weighed])
        record.validation_loss = sum(e.validation_loss_sum for e in weighed) / n_validation if n_validation else None
        by_client = {client: self._estimate([e.validation]) for client, e in evaluations.items()}
        known = {client: estimate for client, estimate in by_client.items() if estimate.value is not None}
        record.client_accuracy = {client: estimate.value for client, estimate in known.items()}
        record.client_standard_error = {client: estimate.standard_error for client, estimate in known.items()}
        strategy, method = self._strategy, self._method

        def save(name: str, result: dict[str, Any]) -> bool:
            prior = {} if self._prior is None else {"prior": self._prior.tolist()}
            return strategy.save(self._path / name, {**result, **prior})

        more = {"dtypes": dict(self._cohort.dtypes), **strategy.summary(record.metrics)}
        is_best = self._folder.add_round(record, partial(save, method.best), **more)
        if method.last:
            save(method.last, self._folder.result_of(record))
        self._tell(record)
        title, n_clients = self._metric.title, len(self._cohort.shares)
        log.info(round_line(record, method, title, last_round=self._rounds, n_clients=n_clients, is_best=is_best))

    def _tell(self, record: RoundRecord) -> None:
        self.progress.finished(record, self._metric.title, self._folder.best_round)
        self._show(record)

    def _estimate(self, counts: Sequence[np.ndarray | None]) -> Estimate:
        """The task's metric of counts added up, those of clients without test data left out; None without examples."""
        counts = [c for c in counts if c is not None]
        return self._metric.estimate(np.sum(counts, axis=0)) if counts else Estimate(None, None)


def _counters(results: Mapping[str, Any]) -> dict[str, Counters]:
    return {client: result.counters for client, result in results.items()}
