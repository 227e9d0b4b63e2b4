"""The server's side of a FedBPT job: an NVFlare controller that holds the search distribution."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from nvflare.apis.analytix import AnalyticsDataType
from nvflare.apis.utils.analytix_utils import create_analytic_dxo, send_analytic_dxo
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.model_controller import ModelController

from flaretune.config import ServerConfig, as_dict, build
from flaretune.fedbpt.answers import Evaluation, SearchAnswer, SetupAnswer
from flaretune.fedbpt.global_update import GlobalSearch
from flaretune.flare import exchange
from flaretune.flare.wire_meter import WireMeter
from flaretune.report.run_folder import RunFolder, scalars
from flaretune.report.run_record import RoundRecord
from flaretune.tasks import metrics

log = logging.getLogger("flaretune.server")
Answer = TypeVar("Answer")

RESULTS = "flaretune"  # folder of the job's results in the server's run folder


class FedBPTController(ModelController):
    """Runs the rounds of FedBPT and keeps their results in the job's run folder on the server.

    Nothing about model, task or data is told here: the sites report what they were told, and the server
    checks that they agree.

    Args:
        min_clients: answers that a round needs; more than the job has sites means all of them.
        num_rounds: rounds.
        seed: of the server's CMA-ES.
        covariance: form in which the covariance travels: full, diagonal or identity.
        sigma_floor: the sites' step size never falls below this; 0 for no floor.
        round_timeout: seconds after which a task goes on without the sites that have not answered.
        setup_timeout: the same for the first task, in which sites load model and data.

    Raises:
        UserError: an argument is out of its range.
    """

    def __init__(
        self,
        min_clients: int = ServerConfig.min_clients,
        num_rounds: int = ServerConfig.num_rounds,
        seed: int = 42,
        covariance: str = ServerConfig.covariance,
        sigma_floor: float = ServerConfig.sigma_floor,
        round_timeout: int = ServerConfig.round_timeout,
        setup_timeout: int = ServerConfig.setup_timeout,
    ):
        super().__init__(persistor_id="", ignore_result_error=True)
        # NVFlare's job export reads the arguments back from attributes of the same names.
        self.min_clients = min_clients
        self.num_rounds = num_rounds
        self.seed = seed
        self.covariance = covariance
        self.sigma_floor = sigma_floor
        self.round_timeout = round_timeout
        self.setup_timeout = setup_timeout
        build(ServerConfig, vars(self))  # checks the values

    def run(self) -> None:
        """Set the sites up, then search round by round.

        A round's mean is evaluated by the sites on the way into the next round: one task a round, not two.
        """
        self._begin()
        setup = self._ask(exchange.SETUP, exchange.setup_task(self._shares), 0, exchange.read_setup_answer)
        if setup is None or not self._agree(setup):
            return
        self._sites = list(setup)  # the others have no model or data to search with
        settings = next(iter(setup.values())).settings
        self._metric_name = settings["task"]["metric"]
        n_counts = len(metrics.count(self._metric_name, np.zeros(0, int), np.zeros(0, int), 0))
        dim = settings["options"]["intrinsic_dim"]
        search = GlobalSearch(
            dim=dim,
            sigma0=settings["options"]["sigma"],
            local_popsize=settings["popsize"],
            seed=self.seed,
            bound=settings["options"]["bound"],
            sigma_floor=self.sigma_floor,
        )
        self._folder = RunFolder(
            Path(self.get_run_dir()) / RESULTS,
            settings,
            {**as_dict(build(ServerConfig, vars(self))), "seed": self.seed},
            self._sites,
            zero_shot=self._metric([a.zero_shot for a in setup.values()]),
        )
        record = self._new_record(0, search, {}, setup, self._job_started)
        self._finish(record, search, {site: a.evaluation for site, a in setup.items()})

        for round_number in range(1, self.num_rounds + 1):
            started = time.monotonic()
            evaluate = round_number > 1  # the initial prompt was evaluated in the setup
            task = exchange.search_task(self._shares, search.distribution, self.covariance, round_number, evaluate)
            read = partial(exchange.read_search_answer, dim=dim, n_counts=n_counts if evaluate else None)
            found = self._ask(exchange.SEARCH, task, round_number, read)
            if found is None:
                return
            if evaluate:
                self._finish(record, search, {site: a.evaluation for site, a in found.items()})
            self._update(search, found, round_number)
            record = self._new_record(round_number, search, found, found, started)

        started = time.monotonic()
        task = exchange.evaluate_task(self._shares, search.distribution.mean)
        read = partial(exchange.read_evaluate_answer, n_counts=n_counts)
        last = self._ask(exchange.EVALUATE, task, self.num_rounds, read)
        if last is None:
            return
        record.seconds = round(record.seconds + time.monotonic() - started, 2)
        self._finish(record, search, {site: a.evaluation for site, a in last.items()})
        log.info("done: results in %s", Path(self.get_run_dir()) / RESULTS)

    def _begin(self) -> None:
        self._job_started = time.monotonic()
        self._sites = sorted((client.name for client in self.engine.get_clients()), key=_natural_order)
        self._shares = list(self._sites)  # whose place is the number of their share of a common data set
        self._needed = min(self.min_clients, len(self._sites))
        if self._needed < self.min_clients:
            log.warning(
                "min_clients %d, but the job has %d sites: all of them are needed", self.min_clients, self._needed
            )
        self._meter = WireMeter(self.fl_ctx.get_job_id(), self.engine.get_cell().core_cell)
        # Half a second at the end of every task by default, and the argument for it has no effect.
        if hasattr(self.communicator, "_task_check_period"):
            self.communicator._task_check_period = 0.02

    def _ask(
        self, task: str, message: FLModel, round_number: int, read: Callable[[FLModel], Answer]
    ) -> dict[str, Answer] | None:
        """Send a task to all sites and collect the answers that can be read, by site.

        Returns:
            The answers in the order of the sites; None if the job was aborted or has failed for want of answers.
        """
        message.current_round, message.total_rounds = round_number, self.num_rounds
        results = self.broadcast_model(
            data=message,
            task_name=task,
            targets=list(self._sites),
            timeout=self.setup_timeout if task == exchange.SETUP else self.round_timeout,
        )
        if self.abort_signal.triggered:
            return None
        answers = {}
        for result in results:
            site = result.meta.get("client_name", "an unknown site")
            try:
                answers[site] = read(result)
            except (ValueError, KeyError, TypeError) as error:
                log.warning("round %d: the %s answer of %s is left out: %s", round_number, task, site, error)
        answers = {site: answers[site] for site in self._sites if site in answers}
        if len(answers) < self._needed:
            missing = ", ".join(site for site in self._sites if site not in answers)
            self.panic(
                f"round {round_number}: {len(answers)} of {len(self._sites)} sites gave a usable {task} answer and "
                f"{self._needed} are needed; without: {missing} (their own logs say why)"
            )
            return None
        return answers

    def _agree(self, setup: dict[str, SetupAnswer]) -> bool:
        """Whether all sites were told the same; if not, the job fails and says which differ and where."""
        (first, reference), *others = setup.items()
        for site, answer in others:
            for part in ("options", "task", "model"):
                mine, theirs = (
                    {k: v for k, v in a.settings[part].items() if (part, k) != ("model", "name")}
                    for a in (reference, answer)
                )
                differing = [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]
                if differing:
                    key = differing[0]
                    self.panic(
                        f"the sites do not agree on the {part}: {key} is {mine.get(key)!r} at {first} and "
                        f"{theirs.get(key)!r} at {site}; give all sites the same"
                    )
                    return False
        return True

    def _update(self, search: GlobalSearch, found: dict[str, SearchAnswer], round_number: int) -> None:
        """Move the search distribution by the sites' answers, and keep both."""
        means = np.array([a.result.mean for a in found.values()])
        fitness = np.array([a.result.fitness for a in found.values()])
        square_sums = np.array([a.result.sigma_square_sum for a in found.values()])
        self._folder.keep_answers(round_number, list(found), means, fitness, square_sums)
        self._folder.keep_distribution(search.update(means, fitness, square_sums))

    def _new_record(
        self,
        round_number: int,
        search: GlobalSearch,
        found: dict[str, SearchAnswer],
        answers: dict[str, SetupAnswer] | dict[str, SearchAnswer],
        started: float,
    ) -> RoundRecord:
        """What is known of a round before its mean is evaluated."""
        seconds = time.monotonic() - started
        wire = self._meter.take()
        fitness = {site: a.result.fitness for site, a in found.items()}
        return RoundRecord(
            round=round_number,
            accuracy=None,
            dev_accuracy=None,
            dev_loss=None,
            fitness=float(np.mean(list(fitness.values()))) if fitness else None,
            sigma=search.distribution.sigma,
            seconds=round(seconds, 2),
            overhead_seconds=round(seconds - max(a.counters.seconds for a in answers.values()), 2),
            sites=list(answers),
            bytes_down=round(wire["down"][0] / len(answers), 1),
            bytes_up=round(wire["up"][0] / len(answers), 1),
            queries=sum(a.counters.queries for a in found.values()),
            example_forwards=sum(a.counters.example_forwards for a in found.values()),
            site_fitness=fitness,
        )

    def _finish(self, record: RoundRecord, search: GlobalSearch, evaluations: dict[str, Evaluation]) -> None:
        """Complete a round's record by the evaluation of its mean, keep it, and tell of it."""
        dev_size = sum(e.dev_size for e in evaluations.values())
        record.accuracy = self._metric([e.test for e in evaluations.values()])
        record.dev_accuracy = self._metric([e.dev for e in evaluations.values()])
        record.dev_loss = sum(e.dev_loss_sum for e in evaluations.values()) / dev_size if dev_size else None
        record.site_accuracy = {
            site: value for site, e in evaluations.items() if (value := self._metric([e.dev])) is not None
        }
        is_best = self._folder.keep_round(record, search.distribution.mean)
        with self.engine.new_context() as fl_ctx:  # TensorBoard, or whatever receives analytics on the server
            for tag, value in scalars(record).items():
                dxo = create_analytic_dxo(tag, value, AnalyticsDataType.SCALAR, global_step=record.round)
                send_analytic_dxo(self, dxo, fl_ctx)
        log.info(record.line(self.num_rounds, len(self._shares), is_best))

    def _metric(self, counts: Sequence[np.ndarray | None]) -> float | None:
        """The task's metric of counts added up, those of sites without test data left out; None without examples."""
        counts = [c for c in counts if c is not None]
        if not counts or not np.sum(counts):
            return None
        return metrics.value(self._metric_name, np.sum(counts, axis=0))


def _natural_order(name: str) -> list:
    """Sort key that puts site-2 before site-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
