"""The server's side of a FedBPT job: an NVFlare controller that holds the search distribution."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from flaretune.config.fedbpt import FedBPTServerConfig
from flaretune.config.options import build
from flaretune.fedbpt.answers import SearchAnswer
from flaretune.fedbpt.artifact import PromptArtifact, save_prompt
from flaretune.fedbpt.global_update import GlobalSearch
from flaretune.fedbpt.local_search import grown_norm_limit
from flaretune.flare import fedbpt_messages, messages
from flaretune.flare.rounds_controller import RoundsController
from flaretune.report.run_record import SearchRecord
from flaretune.report.search_log import keep_answers, keep_distribution
from flaretune.tasks.evaluation import Counters, Evaluation

log = logging.getLogger("flaretune.server")

BEST_PROMPT = "best_prompt.safetensors"


class FedBPTController(RoundsController):
    """Runs the rounds of FedBPT (see `RoundsController`).

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
        min_clients: int = FedBPTServerConfig.min_clients,
        num_rounds: int = FedBPTServerConfig.num_rounds,
        seed: int = 42,
        covariance: str = FedBPTServerConfig.covariance,
        sigma_floor: float = FedBPTServerConfig.sigma_floor,
        round_timeout: int = FedBPTServerConfig.round_timeout,
        setup_timeout: int = FedBPTServerConfig.setup_timeout,
    ):
        super().__init__(FedBPTServerConfig)
        self.min_clients = min_clients
        self.num_rounds = num_rounds
        self.seed = seed
        self.covariance = covariance
        self.sigma_floor = sigma_floor
        self.round_timeout = round_timeout
        self.setup_timeout = setup_timeout
        build(FedBPTServerConfig, vars(self))  # checks the values

    def run(self) -> None:
        """Set the sites up, then search round by round."""
        self.begin()
        setup = self.ask(messages.SETUP, messages.setup_task(self.shares), 0, messages.read_setup_answer)
        if setup is None or not self.agree(setup):
            return
        self.open_folder(setup, BEST_PROMPT, "prompt", seed=self.seed)
        self._settings = next(iter(setup.values())).settings
        options, n_counts = self._settings["options"], self.n_counts()
        dim = options["intrinsic_dim"]
        search = GlobalSearch(
            dim=dim,
            sigma0=options["sigma"],
            local_popsize=self._settings["popsize"],
            seed=self.seed,
            bound=options["bound"],
            sigma_floor=self.sigma_floor,
        )
        record = self._new_record(0, search, {}, {site: a.counters for site, a in setup.items()}, self._job_started)
        self._evaluated(record, search, {site: a.evaluation for site, a in setup.items()})

        # told by the server, since a site's process may be started anew in the middle of a job
        norm_limit = options["prompt_norm_threshold"] if options["norm_prompt"] else None
        for round_number in range(1, self.num_rounds + 1):
            started = time.monotonic()
            evaluate = round_number > 1  # the initial prompt was evaluated in the setup
            start = search.distribution
            if norm_limit is not None:
                norm_limit = grown_norm_limit(norm_limit, start.mean, options["prompt_norm_threshold_upper"])
            task = fedbpt_messages.search_task(self.shares, start, self.covariance, round_number, evaluate, norm_limit)
            read = partial(fedbpt_messages.read_search_answer, dim=dim, n_counts=n_counts if evaluate else None)
            found = self.ask(fedbpt_messages.SEARCH, task, round_number, read)
            if found is None:
                return
            if evaluate:
                self._evaluated(record, search, {site: a.evaluation for site, a in found.items()})
            self._update(search, found, round_number)
            counters = {site: a.counters for site, a in found.items()}
            record = self._new_record(round_number, search, found, counters, started)

        started = time.monotonic()
        task = fedbpt_messages.evaluate_task(self.shares, search.distribution.mean)
        read = partial(messages.read_evaluate_answer, n_counts=n_counts)
        last = self.ask(messages.EVALUATE, task, self.num_rounds, read)
        if last is None:
            return
        record.seconds = round(record.seconds + time.monotonic() - started, 2)
        self._evaluated(record, search, {site: a.evaluation for site, a in last.items()})
        log.info("done: results in %s", self.results_folder())

    def _update(self, search: GlobalSearch, found: Mapping[str, SearchAnswer], round_number: int) -> None:
        """Move the search distribution by the sites' answers, and keep both."""
        means = np.array([a.result.mean for a in found.values()])
        fitness = np.array([a.result.fitness for a in found.values()])
        square_sums = np.array([a.result.sigma_square_sum for a in found.values()])
        keep_answers(self.results_folder(), round_number, list(found), means, fitness, square_sums)
        keep_distribution(self.results_folder(), search.update(means, fitness, square_sums))

    def _new_record(
        self,
        round_number: int,
        search: GlobalSearch,
        found: Mapping[str, SearchAnswer],
        counters: Mapping[str, Counters],
        started: float,
    ) -> SearchRecord:
        """What is known of a round before its mean is evaluated; the setup's questions are no search."""
        fitness = {site: a.result.fitness for site, a in found.items()}
        measured = self.measure(counters, started)
        if not found:
            measured |= {"queries": 0, "example_forwards": 0}
        return SearchRecord(
            round=round_number,
            **measured,
            fitness=float(np.mean(list(fitness.values()))) if fitness else None,
            sigma=search.distribution.sigma,
            site_fitness=fitness,
        )

    def _evaluated(self, record: SearchRecord, search: GlobalSearch, evaluations: Mapping[str, Evaluation]) -> None:
        """Finish a round, keeping its mean as a prompt if it is the best so far."""
        s, point = self._settings, search.distribution.mean

        def save(result: dict[str, Any]) -> bool:
            save_prompt(
                PromptArtifact(point, s["task"], s["options"], s["model"], result), self.results_folder() / BEST_PROMPT
            )
            return True

        self.finish(record, evaluations, save)
