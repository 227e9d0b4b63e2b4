"""What the servers of both methods do: ask the sites, take what can be read, keep and tell of rounds."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from nvflare.apis.analytix import AnalyticsDataType
from nvflare.apis.utils.analytix_utils import create_analytic_dxo, send_analytic_dxo
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.model_controller import ModelController

from flaretune.config.options import as_dict, build
from flaretune.config.shared import ServerConfig
from flaretune.errors import UserError
from flaretune.flare import messages
from flaretune.flare.job_sites import LateSites, disagreement, natural_order
from flaretune.flare.progress import TOPIC, Progress
from flaretune.flare.simulator_fix import give_each_thread_its_own_names
from flaretune.flare.wire_meter import WireMeter
from flaretune.report.kept_run import KeptRun
from flaretune.report.run_folder import RunFolder
from flaretune.report.run_record import RoundRecord, scalars
from flaretune.tasks import metrics
from flaretune.tasks.evaluation import Counters, Evaluation, SetupAnswer, hold_to_the_others, peak_memory_mb

log = logging.getLogger("flaretune.server")
Answer = TypeVar("Answer")
Record = TypeVar("Record", bound=RoundRecord)

RESULTS = "flaretune"  # folder of the job's results in the server's run folder


class RoundsController(ModelController):
    """Asks the sites in rounds and keeps the results in the job's run folder on the server.

    Nothing about model, task or data is told here: the sites report what they were told, and the server
    checks that they agree. A round's result is evaluated by the sites on the way into the next round: one task a
    round, not two.

    Subclasses set every argument of theirs as an attribute of the same name, from which NVFlare's job export reads it
    back, and implement `run_rounds`.

    Args:
        config: the class that says which of the attributes are options, and checks their values.
    """

    min_clients: int
    num_rounds: int
    round_timeout: int
    setup_timeout: int
    aggregation: str
    checkpoint: str

    def __init__(self, config: type[ServerConfig]):
        super().__init__(persistor_id="", ignore_result_error=True)
        self._config = config

    def run(self) -> None:
        """Run the job; what its user can correct ends it with one sentence."""
        self._job_started = time.monotonic()
        give_each_thread_its_own_names()
        try:
            self.kept = KeptRun(self.checkpoint, self.num_rounds)
            self.begin()
            self.run_rounds()
        except UserError as error:
            self.panic(str(error))
        except OSError as error:
            self.panic(f"the results cannot be written: {error.strerror or error} ({error.filename})")

    @abstractmethod
    def run_rounds(self) -> None:
        """Set the sites up, then work round by round.

        Raises:
            UserError: whatever the user can correct.
        """

    def begin(self) -> None:
        """Look at who is there, start to count bytes, and let others look how far the job is."""
        self._sites = sorted((client.name for client in self.engine.get_clients()), key=natural_order)
        self._shares = list(self._sites)  # whose place is the number of their share of a common data set
        self._needed = min(self.min_clients, len(self._sites))
        if self._needed < self.min_clients:
            log.warning(
                "min_clients %d, but the job has %d sites: all of them are needed", self.min_clients, self._needed
            )
        self._meter = WireMeter(self.fl_ctx.get_job_id(), self.engine.get_cell().core_cell)
        self._progress = Progress(self._sites, self.num_rounds, lambda: self._meter.last_heard)
        self.engine.register_app_command(TOPIC, self._progress.tell)
        # Half a second at the end of every task by default, and the argument for it has no effect.
        if hasattr(self.communicator, "_task_check_period"):
            self.communicator._task_check_period = 0.02

    @property
    def shares(self) -> list[str]:
        """Names of the sites in the order of their shares of a common data set."""
        return self._shares

    def results_folder(self) -> Path:
        return Path(self.get_run_dir()) / RESULTS

    def ask(
        self, task: str, message: FLModel, round_number: int, read: Callable[[FLModel], Answer]
    ) -> dict[str, Answer] | None:
        """Send a task to all sites and collect the answers that can be read, by site.

        Returns:
            The answers in the order of the sites; None if the job was aborted or has failed for want of answers.
        """
        self._address(message, round_number)
        if task == messages.SETUP:
            self._late = LateSites(read, self.objection)
        else:
            self._let_in(round_number)
        self._progress.asking(task, round_number)
        self._left_out = dict.fromkeys(self._sites, "no answer (its own log says why)")
        there = [site for site in self._sites if not self._is_gone(site)]
        results = self.broadcast_model(
            data=message,
            task_name=task,
            targets=there or list(self._sites),
            timeout=self.setup_timeout if task == messages.SETUP else self.round_timeout,
        )
        if self.abort_signal.triggered:
            return None
        answers = {}
        for result in results:
            site = result.meta.get("client_name", "an unknown site")
            try:
                answers[site] = read(result)
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
                log.warning("round %d: the %s answer of %s is left out: %s", round_number, task, site, error)
                self._left_out[site] = str(error)
        self._left_out = {site: why for site, why in self._left_out.items() if site not in answers}
        answers = {site: answers[site] for site in self._sites if site in answers}
        if len(answers) < self._needed:
            missing = ", ".join(site for site in self._sites if site not in answers)
            self.panic(
                f"round {round_number}: {len(answers)} of {len(self._sites)} sites gave a usable {task} answer and "
                f"{self._needed} are needed; without: {missing} (their own logs say why)"
            )
            return None
        return answers

    def _is_gone(self, site: str) -> bool:
        """Whether NVFlare takes a site for dead, for which it would wait half a minute in every task."""
        disconnected = getattr(self.communicator, "get_client_disconnect_time", None)
        if disconnected is None or not disconnected(site):
            return False
        self._left_out[site] = "gone: nothing was heard of it for long"
        return True

    def _let_in(self, round_number: int) -> None:
        """Sites that have become ready since the last task take part from now on."""
        for site in self._late.ready():
            log.info("%s is ready and joins in round %d", site, round_number)
            self._sites = [s for s in self._shares if s in {site, *self._sites}]

    def _wait_for_the_late(self, sites: Sequence[str]) -> None:
        """Ask sites that were not ready in time once more, and go on meanwhile."""
        if not sites:
            return
        message = messages.setup_task(self.shares)
        self._address(message, 0)
        self.broadcast_model(
            message, messages.SETUP, list(sites), timeout=0, blocking=False, callback=self._late.arrived
        )

    def _address(self, message: FLModel, round_number: int) -> None:
        message.current_round, message.total_rounds = round_number, self.num_rounds
        if self.kept.name:
            messages.tell_run(message, self.kept.name, self.kept.after_round)

    def agree(self, setup: Mapping[str, SetupAnswer]) -> bool:
        """Whether all sites were told the same; if not, the job fails and says which differ and where."""
        (first, reference), *others = setup.items()
        for site, answer in others:
            if sentence := disagreement(first, reference, site, answer):
                self.panic(sentence)
                return False
        return True

    def objection(self, site: str, answer: Any) -> str:
        """Why a site that is ready late cannot join, given its setup answer; "" if it can."""
        return disagreement(*self._reference, site, answer)

    def open_folder(self, setup: Mapping[str, SetupAnswer], artifact: str, artifact_kind: str, **more: Any) -> None:
        """Start the results of this job: `setup` are the sites that take part, `more` is noted with the options."""
        self._reference = next(iter(setup.items()))
        self._wait_for_the_late([site for site in self._sites if site not in setup])
        self._sites = list(setup)  # the others have no model or data to work with yet
        settings = next(iter(setup.values())).settings
        self._metric_name = settings["task"]["metric"]
        self.folder = RunFolder(
            self.results_folder(),
            settings,
            {**as_dict(build(self._config, vars(self))), **more},
            self._sites,
            zero_shot=self.metric([a.zero_shot for a in setup.values()]),
            artifact=artifact,
            artifact_kind=artifact_kind,
        )

    def go_on(self, kind: type[Record], server: Mapping[str, Any]) -> Record | None:
        """Restore the results of an earlier part of the run, after `open_folder`.

        Args:
            kind: class of the records.
            server: options of the server that must be the same.

        Returns:
            The record of its last round, which is finished but for its evaluation; None for a new run.

        Raises:
            UserError: it was made with other settings.
        """
        self.kept.begin(self.folder.settings, server, self._shares)
        if self.kept.earlier is None:
            return None
        state = self.kept.earlier.state
        for record in self.folder.restore(state["results"], kind, self.kept.earlier.artifact):
            self._show(record)
        return kind(**state["record"])

    def measure(self, answers: Mapping[str, Counters], started: float) -> dict[str, Any]:
        """What a round took: entries of a `RoundRecord`.

        Args:
            answers: counters of the sites that answered.
            started: when the round began, by `time.monotonic`.
        """
        seconds = time.monotonic() - started
        wire = self._meter.take()
        return {
            "seconds": round(seconds, 2),
            "overhead_seconds": round(seconds - max(c.seconds for c in answers.values()), 2),
            "sites": list(answers),
            "left_out": dict(self._left_out),
            "bytes_down": round(wire["down"][0] / len(answers), 1),
            "bytes_up": round(wire["up"][0] / len(answers), 1),
            "queries": sum(c.queries for c in answers.values()),
            "example_forwards": sum(c.example_forwards for c in answers.values()),
            "memory_mb": max(c.memory_mb for c in answers.values()),
            "server_memory_mb": peak_memory_mb(),
        }

    def finish(
        self,
        record: RoundRecord,
        evaluations: Mapping[str, Evaluation],
        save: Callable[[dict[str, Any]], bool],
        **more: Any,
    ) -> None:
        """Complete a round's record by the evaluation of its result, keep it, and tell of it.

        Args:
            record: of the round.
            evaluations: by site.
            save: writes the artifact, given what is known of it; called if it is the best so far.
            more: further entries of the summary.
        """
        weighed = (evaluations if self.aggregation == "plain" else hold_to_the_others(evaluations)).values()
        dev_size = sum(e.dev_size for e in weighed)
        record.accuracy = self.metric([e.test for e in evaluations.values()])
        record.dev_accuracy = self.metric([e.dev for e in weighed])
        record.dev_loss = sum(e.dev_loss_sum for e in weighed) / dev_size if dev_size else None
        record.site_accuracy = {
            site: value for site, e in evaluations.items() if (value := self.metric([e.dev])) is not None
        }
        is_best = self.folder.keep_round(record, save, **more)
        self._show(record)
        log.info(record.line(self.num_rounds, len(self._shares), is_best))

    def _show(self, record: RoundRecord) -> None:
        """Tell a round's numbers to who watches, and to TensorBoard or whatever receives analytics on the server."""
        self._progress.finished(record)
        with self.engine.new_context() as fl_ctx:
            for tag, value in scalars(record).items():
                dxo = create_analytic_dxo(tag, value, AnalyticsDataType.SCALAR, global_step=record.round)
                send_analytic_dxo(self, dxo, fl_ctx)

    def metric(self, counts: Sequence[np.ndarray | None]) -> float | None:
        """The task's metric of counts added up, those of sites without test data left out; None without examples."""
        counts = [c for c in counts if c is not None]
        if not counts or not np.sum(counts):
            return None
        return metrics.value(self._metric_name, np.sum(counts, axis=0))

    def n_counts(self) -> int:
        """How many counts the task's metric has."""
        return len(metrics.count(self._metric_name, np.zeros(0, int), np.zeros(0, int), 0))
