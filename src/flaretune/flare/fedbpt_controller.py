"""The server's side of a FedBPT job: an NVFlare controller that holds the search distribution."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from nvflare.apis.analytix import AnalyticsDataType
from nvflare.apis.utils.analytix_utils import create_analytic_dxo, send_analytic_dxo
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.model_controller import ModelController

from flaretune.config import ServerConfig, as_dict, build
from flaretune.fedbpt.answers import EvaluateAnswer, Evaluation, SearchAnswer, SetupAnswer
from flaretune.fedbpt.artifact import PromptArtifact, save_prompt
from flaretune.fedbpt.global_update import GlobalSearch
from flaretune.flare import exchange
from flaretune.flare.wire_meter import WireMeter
from flaretune.report.run_record import RoundRecord, summary, versions, write_json
from flaretune.tasks import metrics

log = logging.getLogger("flaretune.server")
Answer = TypeVar("Answer")

RESULTS = "flaretune"  # folder of the job's results in the server's run folder
BEST_PROMPT = "best_prompt.safetensors"


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
        """Set the sites up, then search and evaluate round by round."""
        self._begin()
        setup = self._ask(exchange.SETUP, exchange.setup_task(self._sites), 0, exchange.read_setup_answer)
        if setup is None or not self._agree(setup):
            return
        self._sites = list(setup)  # the others have no model or data to search with
        settings = next(iter(setup.values())).settings
        self._settings = settings
        self._zero_shot = self._metric([a.zero_shot for a in setup.values() if a.zero_shot is not None])
        search = GlobalSearch(
            dim=settings["options"]["intrinsic_dim"],
            sigma0=settings["options"]["sigma"],
            local_popsize=settings["popsize"],
            seed=self.seed,
            bound=settings["options"]["bound"],
            sigma_floor=self.sigma_floor,
        )
        self._write_config()
        self._finish_round(0, search, {}, setup, time.monotonic() - self._job_started)
        for round_number in range(1, self.num_rounds + 1):
            started = time.monotonic()
            task = exchange.search_task(search.distribution, self.covariance, round_number)
            found = self._ask(
                exchange.SEARCH, task, round_number, lambda m: exchange.read_search_answer(m, search.distribution.dim)
            )
            if found is None:
                return
            self._update(search, found, round_number)
            task = exchange.evaluate_task(search.distribution.mean, round_number)
            evaluated = self._ask(
                exchange.EVALUATE, task, round_number, exchange.read_evaluate_answer, targets=list(found)
            )
            if evaluated is None:
                return
            self._finish_round(round_number, search, found, evaluated, time.monotonic() - started)
        log.info("done: results in %s", self._folder)

    def _begin(self) -> None:
        self._job_started = time.monotonic()
        self._sites = sorted((client.name for client in self.engine.get_clients()), key=_natural_order)
        self._needed = min(self.min_clients, len(self._sites))
        if self._needed < self.min_clients:
            log.warning(
                "min_clients %d, but the job has %d sites: all of them are needed", self.min_clients, self._needed
            )
        self._folder = Path(self.get_run_dir()) / RESULTS
        (self._folder / "rounds").mkdir(parents=True, exist_ok=True)
        self._meter = WireMeter(self.fl_ctx.get_job_id(), self.engine.get_cell().core_cell)
        self._rounds: list[RoundRecord] = []
        self._best: RoundRecord | None = None
        # Half a second at the end of every task by default, and the argument for it has no effect.
        if hasattr(self.communicator, "_task_check_period"):
            self.communicator._task_check_period = 0.02

    def _ask(
        self,
        task: str,
        message: FLModel,
        round_number: int,
        read: Callable[[FLModel], Answer],
        targets: Sequence[str] | None = None,
    ) -> dict[str, Answer] | None:
        """Send a task and collect the answers that can be read, by site.

        Returns:
            The answers in the order of the sites; None if the job was aborted or has failed for want of answers.
        """
        targets = list(targets or self._sites)
        message.current_round, message.total_rounds = round_number, self.num_rounds
        results = self.broadcast_model(
            data=message,
            task_name=task,
            targets=targets,
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
        answers = {site: answers[site] for site in targets if site in answers}
        if len(answers) < self._needed:
            missing = ", ".join(site for site in targets if site not in answers)
            self.panic(
                f"round {round_number}: {len(answers)} of {len(targets)} sites gave a usable {task} answer and "
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
        means = np.array([a.result.mean for a in found.values()])
        fitness = np.array([a.result.fitness for a in found.values()])
        square_sums = np.array([a.result.sigma_square_sum for a in found.values()])
        # The server's CMA-ES is deterministic: these answers, replayed, bring it back to this state.
        partial = self._folder / "rounds" / ".partial.npz"
        np.savez(partial, sites=list(found), means=means, fitness=fitness, sigma_square_sums=square_sums)
        partial.replace(self._folder / "rounds" / f"round_{round_number:04d}.npz")
        search.update(means, fitness, square_sums)

    def _finish_round(
        self,
        round_number: int,
        search: GlobalSearch,
        found: dict[str, SearchAnswer],
        evaluated: dict[str, SetupAnswer] | dict[str, EvaluateAnswer],
        seconds: float,
    ) -> None:
        """Record a round, tell of it, and keep the best prompt so far by development accuracy."""
        record = self._record(round_number, search, found, evaluated, seconds)
        self._rounds.append(record)
        is_best = self._best is None or _rank(record) > _rank(self._best)
        if is_best:
            self._best = record
            self._save_prompt(search.distribution.mean, record)
        distribution = search.distribution
        partial = self._folder / ".partial.npz"
        np.savez(partial, mean=distribution.mean, sigma=distribution.sigma, covariance=distribution.covariance_matrix())
        partial.replace(self._folder / "distribution.npz")
        write_json(
            summary(
                self._rounds,
                self._best.round,
                self._zero_shot,
                time.monotonic() - self._job_started,
                artifact=BEST_PROMPT,
                task=self._settings["task"]["name"],
                metric=self._settings["task"]["metric"],
                model=self._settings["model"],
                sites=self._sites,
            ),
            self._folder / "summary.json",
        )
        self._stream(record)
        log.info(record.line(self.num_rounds, len(self._sites), is_best))

    def _record(self, round_number, search, found, evaluated, seconds) -> RoundRecord:
        evaluations: dict[str, Evaluation] = {site: a.evaluation for site, a in evaluated.items()}
        dev_size = sum(e.dev_size for e in evaluations.values())
        busy = max((a.counters.seconds for a in found.values()), default=0.0)
        busy += max((a.counters.seconds for a in evaluated.values()), default=0.0)
        wire = self._meter.take()
        fitness = {site: a.result.fitness for site, a in found.items()}
        return RoundRecord(
            round=round_number,
            accuracy=self._metric([e.test for e in evaluations.values() if e.test is not None]),
            dev_accuracy=self._metric([e.dev for e in evaluations.values()]),
            dev_loss=sum(e.dev_loss_sum for e in evaluations.values()) / dev_size if dev_size else None,
            fitness=float(np.mean(list(fitness.values()))) if fitness else None,
            sigma=search.distribution.sigma,
            seconds=round(seconds, 2),
            overhead_seconds=round(seconds - busy, 2),
            sites=list(found or evaluated),
            bytes_down=round(wire["down"][0] / max(len(evaluated), 1), 1),
            bytes_up=round(wire["up"][0] / max(len(evaluated), 1), 1),
            queries=sum(a.counters.queries for a in found.values()),
            example_forwards=sum(a.counters.example_forwards for a in found.values()),
            site_fitness=fitness,
            site_accuracy={s: m for s, e in evaluations.items() if (m := self._metric([e.dev])) is not None},
        )

    def _metric(self, counts: list[np.ndarray]) -> float | None:
        """The task's metric of counts added up; None if there is no example."""
        if not counts or not np.sum(counts):
            return None
        return metrics.value(self._settings["task"]["metric"], np.sum(counts, axis=0))

    def _save_prompt(self, point: np.ndarray, record: RoundRecord) -> None:
        result = {
            "round": record.round,
            "dev_accuracy": record.dev_accuracy,
            "test_accuracy": record.accuracy,
            "zero_shot_accuracy": self._zero_shot,
            "versions": versions(),
        }
        s = self._settings
        save_prompt(PromptArtifact(point, s["task"], s["options"], s["model"], result), self._folder / BEST_PROMPT)

    def _write_config(self) -> None:
        server = as_dict(build(ServerConfig, vars(self)))
        write_json(
            {"server": {**server, "seed": self.seed}, **self._settings, "sites": self._sites, "versions": versions()},
            self._folder / "config.json",
        )

    def _stream(self, record: RoundRecord) -> None:
        """Hand the round's numbers to whatever receives analytics on the server (TensorBoard, MLflow, …)."""
        values: dict[str, Any] = {
            name: getattr(record, name)
            for name in (
                "accuracy", "dev_accuracy", "dev_loss", "fitness", "sigma", "seconds", "overhead_seconds",
                "bytes_down", "bytes_up", "queries", "example_forwards",
            )
        }  # fmt: skip
        values |= {f"fitness/{site}": value for site, value in record.site_fitness.items()}
        values |= {f"dev_accuracy/{site}": value for site, value in record.site_accuracy.items()}
        with self.engine.new_context() as fl_ctx:
            for tag, value in values.items():
                if value is not None:
                    dxo = create_analytic_dxo(tag, float(value), AnalyticsDataType.SCALAR, global_step=record.round)
                    send_analytic_dxo(self, dxo, fl_ctx)


def _rank(record: RoundRecord) -> tuple[float, float]:
    """Order of prompts: development accuracy, then development loss. Test data has no say."""
    if record.dev_accuracy is None:
        return (0.0, float(record.round))  # nothing to choose by: the latest
    return (record.dev_accuracy, -record.dev_loss)


def _natural_order(name: str) -> list:
    """Sort key that puts site-2 before site-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
