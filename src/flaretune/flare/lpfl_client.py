"""An LP-FL site as an NVFlare client: what it answers to each of the server's tasks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.config.options import as_dict, build
from flaretune.flare import lpfl_messages, messages
from flaretune.flare.site_script import (
    STATES,
    Handler,
    load_data,
    open_releases,
    read_task,
    run_script,
    settings_of,
    state_folder,
)
from flaretune.methods.lpfl.answers import LPFLSetupAnswer
from flaretune.methods.lpfl.kept_states import KeptStates
from flaretune.methods.lpfl.private import private_train
from flaretune.privacy.answers import private_evaluate, private_setup
from flaretune.privacy.release import Releases

if TYPE_CHECKING:
    from nvflare.app_common.abstract.fl_model import FLModel

    from flaretune.data.site_data import SiteData
    from flaretune.methods.lpfl.client import LPFLSite
    from flaretune.models.tuned import TunedModel
    from flaretune.tasks.spec import TaskSpec


def main(argv: Sequence[str] | None = None) -> None:
    """Run the site's script; see `run_script`."""
    run_script(LPFLConfig, LPFLTasks, argv)


class LPFLTasks:
    """What this site answers to each task of a job."""

    def __init__(self, config: LPFLConfig):
        self._config = config
        self._site: LPFLSite | None = None
        self._releases: Releases | None = None

    def handlers(self) -> dict[str, Handler]:
        return {messages.SETUP: self._setup, lpfl_messages.TRAIN: self._train, messages.EVALUATE: self._evaluate}

    def _setup(self, task: FLModel, name: str, sites: list[str]) -> FLModel:
        _, after_round = read_task(messages.read_run, task)
        releases = self._noises(task, name)
        if releases:
            releases.check((task.total_rounds or 0) - after_round)
        self._site = None  # of a setup that the server did not wait for: not two models at a time
        self._site, answer = set_up(self._config, name, sites, self._states(task, name), after_round)
        if releases:
            setup = private_setup(answer.setup, bool(self._config.dp_public_test), releases.count)
            answer = replace(answer, setup=setup)
        return lpfl_messages.lpfl_setup_answer(answer)

    def _train(self, task: FLModel, name: str, sites: list[str]) -> FLModel:
        received = read_task(lpfl_messages.read_train_task, task)
        answer = self._opened(task, name, sites).train(*received)
        if releases := self._noises(task, name):
            answer = private_train(answer, received[0], releases, public_test=bool(self._config.dp_public_test))
        return lpfl_messages.train_answer(answer)

    def _evaluate(self, task: FLModel, name: str, sites: list[str]) -> FLModel:
        arrays = read_task(lpfl_messages.read_evaluate_task, task)
        answer = self._opened(task, name, sites).evaluate(arrays)
        if releases := self._noises(task, name):
            answer = private_evaluate(answer, bool(self._config.dp_public_test), releases.count)
        return messages.evaluate_answer(answer)

    def _opened(self, task: FLModel, name: str, sites: list[str]) -> LPFLSite:
        if self._site is None:  # this process was started anew, as the simulator does with fewer threads than clients
            self._site = open_site(self._config, name, sites, self._states(task, name))[0]
            self._site.take_over()
        self._site.calibrate(read_task(messages.read_prior, task))
        return self._site

    def _states(self, task: FLModel, name: str) -> KeptStates:
        return KeptStates(state_folder(self._config, task, name))

    def _noises(self, task: FLModel, name: str) -> Releases | None:
        """What noises this site's answers; None where nothing is noised."""
        if self._releases is None:
            self._releases = open_releases(self._config, task, name)
        return self._releases


def set_up(
    config: LPFLConfig, name: str, sites: Sequence[str], states: KeptStates | None = None, after_round: int = 0
) -> tuple[LPFLSite, LPFLSetupAnswer]:
    """Open a site, and evaluate the pretrained model; see `open_site` and `LPFLSite.setup`."""
    started = time.monotonic()
    site, tuned = open_site(config, name, sites, states)
    settings = settings_of(config, tuned.label_model.spec, tuned.pretrained.kind, tuned.hidden_size)
    more = {
        "adapter": tuned.adapter_config or {},
        "initial": {name: list(values.shape) for name, values in tuned.initial.items()},
        "parameters": {name: list(shape) for name, shape in tuned.parameters.shapes().items()},
    }
    answer = site.setup({**settings, **more}, after_round)
    counters = replace(answer.setup.counters, seconds=time.monotonic() - started)  # of loading too
    return site, replace(answer, setup=replace(answer.setup, counters=counters, dtype=tuned.dtype))


def open_site(
    config: LPFLConfig, name: str, sites: Sequence[str], states: KeptStates | None = None
) -> tuple[LPFLSite, TunedModel]:
    """Load data and model.

    Args:
        config: the site's options.
        name: the site's name.
        sites: names of all sites of the job, in the order of their shares.
        states: see `LPFLSite`; None for those of the job.

    Raises:
        UserError: whatever the user can correct.
    """
    # torch and transformers take seconds to import: only now that NVFlare knows this process
    from flaretune.models.tuned import TuneSettings, open_tuned_model

    # drawn even where soft labels are off, so that the test data of a site's own file is the same; and of a common
    # data set even where this site has a file of its own, so that it tests on no text that others train on
    wanted = 0 if config.unlabelled_path and config.data_path else config.unlabelled
    spec, data = load_data(config, name, sites, unlabelled=wanted)
    tuned = open_tuned_model(
        spec,
        config.model_name,
        build(TuneSettings, as_dict(config)),
        dtype=config.dtype,
        device=config.device,
        batch_size=config.batch_size,
    )
    return site_on(config, name, spec, data, tuned, states or KeptStates(STATES / name)), tuned


def site_on(
    config: LPFLConfig, name: str, spec: TaskSpec, data: SiteData, tuned: TunedModel, states: KeptStates
) -> LPFLSite:
    """The site of these data, on a model that is there; several sites may train the same one in turn."""
    from flaretune.data.load import load_texts
    from flaretune.methods.lpfl.client import Labelled, LearnSettings, LPFLSite, SiteTexts
    from flaretune.methods.lpfl.soft_labels import SoftLabelSettings

    pool = load_texts(spec, config.unlabelled_path) if config.unlabelled_path else data.unlabelled
    options = as_dict(config)
    encode = tuned.label_model.encode
    texts = SiteTexts(
        Labelled(encode(data.train.texts), data.train.labels),
        Labelled(encode(data.dev.texts), data.dev.labels),
        None if data.test is None else Labelled(encode(data.test.texts), data.test.labels),
        encode(pool.texts) if config.soft_labels == "on" else [],
        pool.truth,
    )
    settings, soft = build(LearnSettings, options), build(SoftLabelSettings, options)
    return LPFLSite(name, tuned, texts, settings, soft, states)
