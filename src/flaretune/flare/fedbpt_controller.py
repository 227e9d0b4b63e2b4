"""The server's side of a FedBPT job: an NVFlare controller that holds the search distribution."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from flaretune.config.arguments import takes_options
from flaretune.config.options import as_dict
from flaretune.engine.records import SearchRecord
from flaretune.flare import fedbpt_messages, messages
from flaretune.flare.job_sites import note_limited
from flaretune.flare.rounds_controller import RoundsController
from flaretune.methods.fedbpt.answers import SearchAnswer
from flaretune.methods.fedbpt.artifact import PromptArtifact, save_prompt
from flaretune.methods.fedbpt.bounded import Answers, bounded
from flaretune.methods.fedbpt.config import FedBPTConfig, FedBPTServerConfig, norm_limits
from flaretune.methods.fedbpt.global_update import GlobalSearch
from flaretune.methods.fedbpt.history import keep_answers, keep_distribution
from flaretune.methods.fedbpt.objective import FITNESS_RANGE
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
        round_timeout: seconds after which a task goes on without the sites that have not answered.
        setup_timeout: the same for the first task, in which sites load model and data.
        aggregation: how the sites' answers are bounded before CMA-ES recombines them (`fedbpt.bounded`).
        checkpoint: folder that the run is kept in after every round; "" for none.

    Raises:
        UserError: an argument is out of its range.
    """

    @takes_options(FedBPTServerConfig, seed=42)
    def __init__(self, config: FedBPTServerConfig, seed: int):
        super().__init__(FedBPTServerConfig)
        vars(self).update(as_dict(config), seed=seed)
        # of all rounds: the sites that answered, and what they did
        self._answered: list[list[str]] = []
        self._answers: dict[str, np.ndarray] = {}

    def run_rounds(self) -> None:
        """Set the sites up, then search round by round; see `RoundsController.run_rounds`."""
        read_setup = partial(messages.read_setup_answer, config=FedBPTConfig)
        setup = self.ask(messages.SETUP, messages.setup_task(self.shares), 0, read_setup)
        if setup is None or not self.agree(setup):
            return
        self.open_folder(setup, BEST_PROMPT, "prompt", seed=self.seed)
        self._settings = next(iter(setup.values())).settings
        options, n_counts = self._settings["options"], self.n_counts()
        dim, limits = options["intrinsic_dim"], norm_limits(options["max_norm"])
        search = GlobalSearch(
            dim=dim,
            sigma0=options["sigma"],
            local_popsize=self._settings["popsize"],
            seed=self.seed,
            bound=options["bound"],
            norm_limit=limits and limits[0],
            norm_limit_upper=limits[1] if limits else 0.0,
            equal_weights=bool(options["dp_noise"]),  # sites then do not tell their fitness
        )
        server = {name: getattr(self, name) for name in ("seed", "covariance", "aggregation")}
        record = self.go_on(SearchRecord, server)
        self.calibrate(setup)
        evaluated = record is None and self.prior is None  # in the setup, before a prior was known
        if record is None:
            record = self._new_record(0, search, {}, {site: a.counters for site, a in setup.items()}, self._job_started)
        else:
            with self.kept.taking_up():
                self._replay(search)
        if evaluated:
            self._evaluated(record, search, {site: a.evaluation for site, a in setup.items()})

        for round_number in range(record.round + 1, self.num_rounds + 1):
            started = time.monotonic()
            task = fedbpt_messages.search_task(
                self.shares, search.distribution, self.covariance, round_number, not evaluated, search.norm_limit
            )
            read = partial(
                fedbpt_messages.read_search_answer,
                dim=dim,
                n_counts=None if evaluated else n_counts,
                fitness_range=FITNESS_RANGE[options["loss_type"]],
                settings=self._settings,
            )
            found = self.ask(fedbpt_messages.SEARCH, task, round_number, read)
            if found is None:
                return
            if not evaluated:
                self._evaluated(record, search, {site: a.evaluation for site, a in found.items()})
            evaluated = False
            limited = self._update(search, found, round_number)
            counters = {site: a.counters for site, a in found.items()}
            record = self._new_record(round_number, search, found, counters, started)
            note_limited(record, limited, self.aggregation)
            self.keep(record, self._answers, answered=self._answered)

        started = time.monotonic()
        task = fedbpt_messages.evaluate_task(self.shares, search.distribution.mean)
        read = partial(messages.read_evaluate_answer, n_counts=n_counts)
        last = self.ask(messages.EVALUATE, task, self.num_rounds, read)
        if last is None:
            return
        self.finish_last(record, {site: a.counters for site, a in last.items()}, started)
        self._evaluated(record, search, {site: a.evaluation for site, a in last.items()})
        self.tell_end()

    def _update(self, search: GlobalSearch, found: Mapping[str, SearchAnswer], round_number: int) -> list[str]:
        """Move the search distribution by the sites' answers; returns the sites that were above a limit."""
        results = [a.result for a in found.values()]
        values = ([r.mean for r in results], [r.fitness for r in results], [r.sigma_square_sum for r in results])
        return self._move(search, round_number, list(found), *map(np.array, values))

    def _replay(self, search: GlobalSearch) -> None:
        """Move the search distribution by the answers of an earlier run: CMA-ES is deterministic."""
        for round_number, sites in enumerate(self.kept.earlier.state["answered"], start=1):
            values = (self.kept.earlier.arrays[name] for name in _names(round_number))
            self._move(search, round_number, sites, *values)

    def _move(self, search: GlobalSearch, round_number: int, sites: list[str], *values: np.ndarray) -> list[str]:
        """Move the search distribution by means, fitness and summed squared step sizes, and keep all as it came."""
        self._answered.append(sites)
        self._answers |= dict(zip(_names(round_number), values, strict=True))
        keep_answers(self.results_folder(), round_number, sites, *values)
        answers, limited = bounded(self.aggregation, search.distribution.mean, Answers(*values))
        distribution = search.update(answers.means, answers.fitness, answers.sigma_square_sums)
        keep_distribution(self.results_folder(), distribution)
        return [site for site, is_limited in zip(sites, limited, strict=True) if is_limited]

    def _new_record(
        self,
        round_number: int,
        search: GlobalSearch,
        found: Mapping[str, SearchAnswer],
        counters: Mapping[str, Counters],
        started: float,
    ) -> SearchRecord:
        """What is known of a round before its mean is evaluated; the setup's questions are no search."""
        measured = self.measure(counters, started)
        fitness = {site: a.result.fitness for site, a in found.items()} if measured["epsilon"] is None else {}
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
            artifact = PromptArtifact(point, s["task"], s["options"], s["model"], self.told(result))
            save_prompt(artifact, self.results_folder() / BEST_PROMPT)
            return True

        self.finish(record, evaluations, save)


def _names(round_number: int) -> list[str]:
    """What a round's means, fitness and summed squared step sizes are kept as."""
    return [f"{round_number:05d}.{name}" for name in ("means", "fitness", "sigma_square_sums")]
