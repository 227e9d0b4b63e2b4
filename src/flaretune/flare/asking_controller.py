"""How the servers of both methods ask the sites: who is there, who is late or gone, and which answers can be read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.model_controller import ModelController

from flaretune.engine.resume import KeptRun
from flaretune.flare import messages
from flaretune.flare.fixes import communicator as communicator_fix
from flaretune.flare.job_sites import LateSites, disagreement, natural_order
from flaretune.flare.progress import TOPIC, Progress
from flaretune.flare.wire_meter import WireMeter
from flaretune.tasks.evaluation import SetupAnswer

log = logging.getLogger("flaretune.server")
Answer = TypeVar("Answer")


class AskingController(ModelController):
    """Gives the sites of a job a task, and collects what they answer.

    A task goes on without sites that do not answer in time; those that were not ready for the first one join when they
    are, and those that NVFlare takes for dead are not asked until it hears of them again.

    Subclasses set these:

    Attributes:
        min_clients: answers that a task needs; more than the job has sites means all of them.
        num_rounds: rounds.
        round_timeout: seconds after which a task goes on without the sites that have not answered.
        setup_timeout: the same for the first task.
        kept: the run that the job belongs to.
        prior: of the classes, float64 (C,), which sites divide out of the model's answers; None for none.
        dtypes: by site, what its model computes in, as far as it tells; set with the first sites that are ready.
    """

    min_clients: int
    num_rounds: int
    round_timeout: int
    setup_timeout: int
    kept: KeptRun
    prior: np.ndarray | None = None
    dtypes: dict[str, str]
    _rounds_asked = 0  # in this job
    _reference: tuple[str, SetupAnswer] | None = None  # the first site that was set up, and its answer

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
        communicator_fix.correct(self.communicator)

    @property
    def shares(self) -> list[str]:
        """Names of the sites in the order of their shares of a common data set."""
        return self._shares

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
            self._rounds_asked += task != messages.EVALUATE
        self._progress.asking(task, round_number)
        self._left_out = dict.fromkeys(self._sites, "no answer (its own log says why)")
        asked = time.monotonic()
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
                answer = read(result)
                self._check(answer, time.monotonic() - asked)
                answers[site] = answer
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
                self.leave_out(site, round_number, task, str(error))
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

    def leave_out(self, site: str, round_number: int, task: str, why: str) -> None:
        """Note and say that a site's answer does not count."""
        log.warning("round %d: the %s answer of %s is left out: %s", round_number, task, site, why)
        self._left_out[site] = why

    def _check(self, answer: Any, seconds: float) -> None:
        """Check what a site says that an answer has cost, and of how many texts it is, of which reports are made.

        Args:
            answer: with `counters` and an `evaluation`, which may be None.
            seconds: since it was asked; clocks of two machines may differ a little.

        Raises:
            ValueError: more than can be.
        """
        counters, evaluation = answer.counters, answer.evaluation
        if counters.seconds > 1.01 * seconds + 1:
            raise ValueError(f"'seconds' is {counters.seconds:g}, and it was asked {seconds:.0f} seconds ago")
        most = self.kept.releases_before + self._rounds_asked
        if counters.releases > most:
            raise ValueError(f"'releases' is {counters.releases}, and it can have given {most} noised answers")
        if evaluation and self._reference:  # a setup answer has been checked by its own settings
            messages.check_few_shots(self._reference[1].settings, dev_loss=evaluation.n_validation)

    def _is_gone(self, site: str) -> bool:
        """Whether NVFlare takes a site for dead, for which it would wait half a minute in every task."""
        disconnected = getattr(self.communicator, "get_client_disconnect_time", None)
        if disconnected is None or not disconnected(site):
            return False
        self._left_out[site] = "gone: nothing was heard of it for long"
        return True

    def _let_in(self, round_number: int) -> None:
        """Sites that have become ready since the last task take part from now on."""
        for site, answer in self._late.ready():
            log.info("%s is ready and joins in round %d", site, round_number)
            self.dtypes |= {site: answer.dtype} if answer.dtype else {}
            self._sites = [s for s in self._shares if s in {site, *self._sites}]

    def go_on_without_the_late(self, setup: Mapping[str, SetupAnswer]) -> None:
        """Work with the sites that are set up; those that were not ready in time are asked once more meanwhile."""
        self._reference = next(iter(setup.items()))
        self.dtypes = {site: answer.dtype for site, answer in setup.items() if answer.dtype}
        late, self._sites = [site for site in self._sites if site not in setup], list(setup)
        if not late:
            return
        message = messages.setup_task(self.shares)
        self._address(message, 0)
        self.broadcast_model(message, messages.SETUP, late, timeout=0, blocking=False, callback=self._late.arrived)

    def _address(self, message: FLModel, round_number: int) -> None:
        message.current_round, message.total_rounds = round_number, self.num_rounds
        if self.kept.name:
            messages.tell_run(message, self.kept.name, self.kept.after_round)
        if self.prior is not None:
            messages.tell_prior(message, self.prior)

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
