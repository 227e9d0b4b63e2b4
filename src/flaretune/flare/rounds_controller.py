"""What the servers of both methods do: run rounds, keep and tell of them."""

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

from flaretune.aggregation.limits import FACTOR, shrinkage
from flaretune.config.options import as_dict, build
from flaretune.config.server import ServerConfig
from flaretune.engine.records import RoundRecord, scalars
from flaretune.engine.resume import KeptRun
from flaretune.engine.run_folder import RunFolder
from flaretune.errors import UserError
from flaretune.flare.asking_controller import AskingController
from flaretune.flare.fixes import simulator as simulator_fix
from flaretune.flare.job_sites import warn_of_other_formats
from flaretune.privacy.accountant import account, sentence
from flaretune.tasks import calibration, metrics
from flaretune.tasks.evaluation import Counters, Evaluation, SetupAnswer, hold_to_the_others, peak_memory_mb

log = logging.getLogger("flaretune.server")
Record = TypeVar("Record", bound=RoundRecord)

RESULTS = "flaretune"  # folder of the job's results in the server's run folder


class RoundsController(AskingController):
    """Asks the sites in rounds and keeps the results in the job's run folder on the server.

    Nothing about model, task or data is told here: the sites report what they were told, and the server
    checks that they agree. A round's result is evaluated by the sites on the way into the next round: one task a
    round, not two.

    Subclasses set every argument of theirs as an attribute of the same name, from which NVFlare's job export reads it
    back, and implement `run_rounds`.

    Args:
        config: the class that says which of the attributes are options, and checks their values.
    """

    aggregation: str
    checkpoint: str

    def __init__(self, config: type[ServerConfig]):
        super().__init__(persistor_id="", ignore_result_error=True)
        self._config = config

    def run(self) -> None:
        """Run the job; what its user can correct ends it with one sentence."""
        self._job_started = time.monotonic()
        simulator_fix.give_each_thread_its_own_names()
        simulator_fix.find_ports_without_listening()
        simulator_fix.let_readers_leave()
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

    def results_folder(self) -> Path:
        return Path(self.get_run_dir()) / RESULTS

    def open_folder(self, setup: Mapping[str, SetupAnswer], artifact: str, artifact_kind: str, **more: Any) -> None:
        """Start the results of this job: `setup` are the sites that take part, `more` is noted with the options."""
        self.go_on_without_the_late(setup)
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

    def calibrate(self, setup: Mapping[str, SetupAnswer]) -> None:
        """From now on, sites divide out the prior that the model has over all their texts, if they have told it."""
        masses = [answer.mass for answer in setup.values() if answer.mass is not None]
        if self.kept.earlier:
            earlier = self.kept.earlier.state.get("prior")
            self.prior = None if earlier is None else np.array(earlier)
        elif masses:
            if self.aggregation != "mean":  # whose sum is a site's number of texts
                masses = list(np.array(masses) * shrinkage(np.sum(masses, axis=1), down_to=FACTOR)[:, None])
            self.prior = calibration.prior(masses)
            log.info("the model's mean probabilities of the classes: %s", ", ".join(f"{p:.3f}" for p in self.prior))

    def told(self, result: dict[str, Any]) -> dict[str, Any]:
        """What is known of a result, with the prior that its answers are to be divided by."""
        return result if self.prior is None else {**result, "prior": self.prior.tolist()}

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
        with self.kept.taking_up():
            self.kept.begin(self.folder.settings, server, self._shares)
            if self.kept.earlier is None:
                return None
            state = self.kept.earlier.state
            warn_of_other_formats(state.get("dtypes", {}), self.dtypes)
            for record in self.folder.restore(state["results"], kind, self.kept.earlier.artifact):
                self._show(record)
            return kind(**state["record"])

    def keep(self, record: RoundRecord, arrays: Mapping[str, np.ndarray], **more: Any) -> None:
        """Keep the run after a round; see `KeptRun.keep`."""
        prior = None if self.prior is None else self.prior.tolist()
        self.kept.keep(record, self.folder, arrays, prior=prior, dtypes=self.dtypes, **more)

    def measure(self, answers: Mapping[str, Counters], started: float) -> dict[str, Any]:
        """What a round took: entries of a `RoundRecord`.

        Args:
            answers: counters of the sites that answered.
            started: when the round began, by `time.monotonic`.
        """
        seconds = time.monotonic() - started
        wire = self._meter.take()
        spent = self.spent(answers)
        return {
            "seconds": round(seconds, 2),
            "overhead_seconds": (
                round(seconds - max(c.seconds for c in answers.values()), 2) if spent["epsilon"] is None else None
            ),
            "sites": list(answers),
            "left_out": dict(self._left_out),
            "bytes_down": round(wire["down"][0] / len(answers), 1),
            "bytes_up": round(wire["up"][0] / len(answers), 1),
            "queries": sum(c.queries for c in answers.values()),
            "example_forwards": sum(c.example_forwards for c in answers.values()),
            "memory_mb": max(c.memory_mb for c in answers.values()),
            "server_memory_mb": peak_memory_mb(),
            **spent,
        }

    def spent(self, answers: Mapping[str, Counters]) -> dict[str, Any]:
        """What noised answers have cost until now: entries of a `RoundRecord`."""
        releases = max(c.releases for c in answers.values())
        told = account(self.folder.settings["options"], releases)
        return {"releases": releases, "epsilon": told["epsilon"]} if told else {"releases": 0, "epsilon": None}

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
        weighed = (evaluations if self.aggregation == "mean" else hold_to_the_others(evaluations)).values()
        dev_size = sum(e.dev_size for e in weighed)
        record.accuracy = self.metric([e.test for e in evaluations.values()])
        record.dev_accuracy = self.metric([e.dev for e in weighed])
        record.dev_loss = sum(e.dev_loss_sum for e in weighed) / dev_size if dev_size else None
        record.site_accuracy = {
            site: value for site, e in evaluations.items() if (value := self.metric([e.dev])) is not None
        }
        is_best = self.folder.keep_round(record, save, dtypes=dict(self.dtypes), **more)
        self._show(record)
        log.info(record.line(self.num_rounds, len(self._shares), is_best))

    def finish_last(self, record: RoundRecord, answers: Mapping[str, Counters], started: float) -> None:
        """Add the evaluation that closes the job to the record of the last round."""
        record.seconds = round(record.seconds + time.monotonic() - started, 2)
        spent = self.spent(answers)
        if spent["releases"] > record.releases:  # an answer that came too late to count has been given all the same
            record.releases, record.epsilon = spent["releases"], spent["epsilon"]

    def tell_end(self) -> None:
        """The last line of the job's log."""
        privacy = self.folder.privacy()
        log.info("done: results in %s%s", self.results_folder(), f"; {sentence(privacy['privacy'])}" if privacy else "")

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
