"""The server's side of an LP-FL job: an NVFlare controller that averages the sites' adapters."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from flaretune.config.arguments import takes_options
from flaretune.config.options import as_dict
from flaretune.engine.records import TrainRecord
from flaretune.errors import UserError
from flaretune.flare import lpfl_messages, messages
from flaretune.flare.job_sites import note_limited
from flaretune.flare.lpfl_average import combine
from flaretune.flare.lpfl_start import adapter_to_go_on_from, most_common
from flaretune.flare.rounds_controller import RoundsController
from flaretune.methods.lpfl.answers import LPFLSetupAnswer, TrainAnswer
from flaretune.methods.lpfl.artifact import AdapterArtifact, load_adapter, save_adapter
from flaretune.methods.lpfl.bounded import coordinate_median
from flaretune.methods.lpfl.config import LPFLConfig, LPFLServerConfig
from flaretune.tasks.evaluation import Counters, Evaluation

log = logging.getLogger("flaretune.server")

BEST_ADAPTER, LAST_ADAPTER = "best_adapter", "last_adapter"


class LPFLController(RoundsController):
    """Runs the rounds of LP-FL (see `RoundsController`): FedAvg (arXiv 1602.05629) of what the sites have trained.

    NVFlare's own `FedAvg` adds results up as they arrive, so that equal seeds need not give equal bits, and takes every
    result that it can add; here answers are checked first, and `lpfl_average` combines them. Averaging A and B each is
    not averaging their product B·A, which is what the model adds to its weights; with A frozen and the same everywhere
    it is: mean(B_k)·A = mean(B_k·A) (FFA-LoRA, arXiv 2403.12313).

    Args:
        min_clients: answers that a round needs; more than the job has sites means all of them.
        num_rounds: rounds.
        round_timeout: seconds after which a task goes on without the sites that have not answered.
        setup_timeout: the same for the first task, in which sites load model and data.
        init_adapter: adapter folder on the server to go on from; "" for a new adapter.
        aggregation: how the sites' adapters are combined (`lpfl_average`).
        checkpoint: folder that the run is kept in after every round; "" for none.

    Raises:
        UserError: an argument is out of its range, or there is no such adapter.
    """

    @takes_options(LPFLServerConfig)
    def __init__(self, config: LPFLServerConfig):
        super().__init__(LPFLServerConfig)
        vars(self).update(as_dict(config))

    def run_rounds(self) -> None:
        """Set the sites up, then train round by round; see `RoundsController.run_rounds`."""
        read_setup = partial(lpfl_messages.read_lpfl_setup_answer, config=LPFLConfig)
        answers = self.ask(messages.SETUP, messages.setup_task(self.shares), 0, read_setup)
        if answers is None:
            return
        setup = {site: a.setup for site, a in answers.items()}
        if not self.agree(setup):
            return
        self._settings = next(iter(setup.values())).settings
        setup = {site: setup[site] for site in self._start(answers)}
        self.open_folder(setup, BEST_ADAPTER, "adapter")
        shapes = {name: tuple(shape) for name, shape in self._settings["parameters"].items()}  # of what is trained
        arrays = {name: values for name, values in self._whole.items() if name in shapes}
        record = self.go_on(TrainRecord, {"aggregation": self.aggregation})
        if self.kept.earlier or not self.init_adapter:  # which has its own prior, or none
            self.calibrate(setup)
        # a new adapter leaves the model as the sites have evaluated it in the setup, before a prior was known; another
        # is evaluated on the way
        evaluated = record is None and not self.init_adapter and self.prior is None
        if record is None:
            record = self._new_record(0, {}, {site: a.counters for site, a in setup.items()}, self._job_started)
        else:
            arrays = self.kept.earlier.arrays
        if evaluated:
            self._evaluated(record, arrays, {site: a.evaluation for site, a in setup.items()})
        n_counts = self.n_counts()

        for round_number in range(record.round + 1, self.num_rounds + 1):
            started = time.monotonic()
            task = lpfl_messages.train_task(self.shares, arrays, round_number, not evaluated)
            read = partial(
                lpfl_messages.read_train_answer,
                shapes=shapes,
                n_counts=None if evaluated else n_counts,
                settings=self._settings,
            )
            trained = self.ask(lpfl_messages.TRAIN, task, round_number, read)
            del task
            if trained is None:
                return
            if not evaluated:
                self._evaluated(record, arrays, {site: a.evaluation for site, a in trained.items()})
            arrays, limited = combine(self.aggregation, arrays, trained, round_number)
            counters = {site: a.counters for site, a in trained.items()}
            record = self._new_record(round_number, trained, counters, started)
            note_limited(record, limited, self.aggregation)
            del trained
            evaluated = False
            self.keep(record, arrays)

        started = time.monotonic()
        task = lpfl_messages.evaluate_task(self.shares, arrays)
        last = self.ask(
            messages.EVALUATE, task, self.num_rounds, partial(messages.read_evaluate_answer, n_counts=n_counts)
        )
        if last is None:
            return
        self.finish_last(record, {site: a.counters for site, a in last.items()}, started)
        self._evaluated(record, arrays, {site: a.evaluation for site, a in last.items()})
        self.tell_end()

    def objection(self, site: str, answer: LPFLSetupAnswer) -> str:
        return super().objection(site, answer.setup) or self._other_frozen_part(site, answer)

    def _start(self, answers: Mapping[str, LPFLSetupAnswer]) -> dict[str, LPFLSetupAnswer]:
        """Set the whole adapter that the job starts from: that of an earlier run, or the one that the sites have drawn.

        Returns:
            The answers of the sites that have its frozen part, which is never sent again.

        Raises:
            UserError: the earlier one does not fit, or too few sites have the frozen part.
        """
        initial = [answer.initial for answer in answers.values()]
        self._whole = dict(initial[0])
        if self.aggregation != "mean":  # equal seeds give equal ones: then this is the first site's too
            self._whole = coordinate_median(initial)
        frozen = sorted(set(self._whole) - set(self._settings["parameters"]))
        if self.init_adapter:
            self._whole, self.prior = adapter_to_go_on_from(self.init_adapter, self._settings, self._whole)
        elif frozen and self.kept.earlier and self.kept.earlier.artifact:
            with self.kept.taking_up():
                arrays = load_adapter(self.kept.earlier.artifact).arrays
                self._whole |= {name: arrays[name] for name in frozen}
        elif frozen:
            self._whole |= most_common([{name: arrays[name] for name in frozen} for arrays in initial])
        objections = {site: self._other_frozen_part(site, answer) for site, answer in answers.items()}
        fitting = {site: answer for site, answer in answers.items() if not objections[site]}
        if len(fitting) < self._needed or 2 * len(fitting) <= len(answers):
            raise UserError(next(sentence for sentence in objections.values() if sentence))
        for site, sentence in objections.items():
            if sentence:
                self.leave_out(site, 0, messages.SETUP, sentence)
        return fitting

    def _other_frozen_part(self, site: str, answer: LPFLSetupAnswer) -> str:
        """Which frozen part a site has other than the job, as a sentence; "" if none."""
        for name in sorted(set(self._whole) - set(self._settings["parameters"])):
            if not np.array_equal(self._whole[name], answer.initial[name]):
                return (
                    f"--freeze_a 1: {name} at {site} is another than that of the job's start; every site needs the "
                    "same seed, rank and version of PEFT and torch"
                )
        return ""

    def _new_record(
        self,
        round_number: int,
        trained: Mapping[str, TrainAnswer],
        counters: Mapping[str, Counters],
        started: float,
    ) -> TrainRecord:
        """What is known of a round before its result is evaluated."""
        answers = list(trained.values())
        measured = self.measure(counters, started)
        if not trained:
            return TrainRecord(round=round_number, **{**measured, "queries": 0, "example_forwards": 0})
        if measured["epsilon"] is not None:  # then sites do not tell how many texts they have, and with what loss
            return TrainRecord(round=round_number, **measured)
        sizes = [a.labelled + a.soft_labelled for a in answers]
        known = [a for a in answers if a.soft_labels_right is not None]
        n_known = sum(a.soft_labelled for a in known)
        return TrainRecord(
            round=round_number,
            **measured,
            train_loss=float(np.average([a.loss for a in answers], weights=sizes)),
            labelled=sum(a.labelled for a in answers),
            soft_labelled=sum(a.soft_labelled for a in answers),
            soft_label_agreement=sum(a.soft_labels_right for a in known) / n_known if n_known else None,
            site_loss={site: a.loss for site, a in trained.items()},
        )

    def _evaluated(
        self, record: TrainRecord, arrays: Mapping[str, np.ndarray], evaluations: Mapping[str, Evaluation]
    ) -> None:
        """Finish a round, keeping its adapter as the last one, and as the best if it is."""
        s = self._settings
        whole = {**self._whole, **arrays}

        def keep(name: str, result: dict[str, Any]) -> bool:
            if whole:  # nothing where every parameter is trained and none has been yet
                about = (s["task"], s["options"], s["model"], self.told(result))
                artifact = AdapterArtifact(whole, s["adapter"] or None, *about)
                save_adapter(artifact, self.results_folder() / name)
            return bool(whole)

        self.finish(
            record,
            evaluations,
            partial(keep, BEST_ADAPTER),
            labelled=record.labelled,
            soft_labelled=record.soft_labelled,
            soft_label_agreement=record.soft_label_agreement,
            trained_parameters=sum(int(np.prod(shape)) for shape in s["parameters"].values()),
        )
        keep(LAST_ADAPTER, self.folder.result_of(record))
