"""A FedBPT site as an NVFlare client: what it answers to each of the server's tasks."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from nvflare.fuel.utils.secret_utils import resolve_secret_refs

from flaretune.config.model_server import TOKEN_VARIABLE
from flaretune.config.options import as_dict, build
from flaretune.errors import UserError
from flaretune.flare import fedbpt_messages, messages
from flaretune.flare.site_script import Handler, load_data, open_releases, read_task, run_script, settings_of
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.fedbpt.private import private_search
from flaretune.model_server.client import RemotePromptedModel, open_remote_model
from flaretune.models.prompt_settings import PromptSettings
from flaretune.privacy.answers import private_evaluate, private_setup
from flaretune.privacy.release import Releases

if TYPE_CHECKING:
    from nvflare.app_common.abstract.fl_model import FLModel

    from flaretune.data.site_data import SiteData
    from flaretune.methods.fedbpt.client import FedBPTSite
    from flaretune.models.prompted import PromptedModel
    from flaretune.tasks.evaluation import SetupAnswer
    from flaretune.tasks.spec import TaskSpec

log = logging.getLogger("flaretune.site")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the site's script; see `run_script`."""
    run_script(FedBPTConfig, FedBPTTasks, argv)


class FedBPTTasks:
    """What this site answers to each task of a job."""

    def __init__(self, config: FedBPTConfig):
        self._config = config
        self._site: FedBPTSite | None = None
        self._releases: Releases | None = None

    def handlers(self) -> dict[str, Handler]:
        return {messages.SETUP: self._setup, fedbpt_messages.SEARCH: self._search, messages.EVALUATE: self._evaluate}

    def _setup(self, task: FLModel, name: str, sites: list[str]) -> FLModel:
        releases = self._noises(task, name)
        if releases:
            _, after_round = read_task(messages.read_run, task)
            releases.check((task.total_rounds or 0) - after_round)
        self._site = None  # of a setup that the server did not wait for: not two models at a time
        self._site, answer = set_up(self._config, name, sites)
        if releases:
            answer = private_setup(answer, bool(self._config.dp_public_test), releases.count)
        return messages.setup_answer(answer)

    def _search(self, task: FLModel, name: str, sites: list[str]) -> FLModel:
        received = read_task(fedbpt_messages.read_search_task, task)
        answer = self._opened(task, name, sites).search(*received)
        if releases := self._noises(task, name):
            start, _, _, norm_limit = received
            c = self._config
            answer = private_search(
                answer,
                start,
                releases,
                generations=c.local_iter,
                public_test=bool(c.dp_public_test),
                bound=c.bound,
                norm_limit=norm_limit,
            )
        return fedbpt_messages.search_answer(answer)

    def _evaluate(self, task: FLModel, name: str, sites: list[str]) -> FLModel:
        point = read_task(fedbpt_messages.read_evaluate_task, task)
        answer = self._opened(task, name, sites).evaluate(point)
        if releases := self._noises(task, name):
            answer = private_evaluate(answer, bool(self._config.dp_public_test), releases.count)
        return messages.evaluate_answer(answer)

    def _noises(self, task: FLModel, name: str) -> Releases | None:
        """What noises this site's answers; None where nothing is noised."""
        if self._releases is None:
            self._releases = open_releases(self._config, task, name)
        return self._releases

    def _opened(self, task: FLModel, name: str, sites: list[str]) -> FedBPTSite:
        if self._site is None:  # this process was started anew, as the simulator does with fewer threads than clients
            self._site = open_site(self._config, name, sites)[0]
        self._site.calibrate(read_task(messages.read_prior, task))
        return self._site


def set_up(config: FedBPTConfig, name: str, sites: Sequence[str]) -> tuple[FedBPTSite, SetupAnswer]:
    """Open a site, and evaluate the model alone and the initial prompt; see `open_site`."""
    started = time.monotonic()
    site, prompted, data = open_site(config, name, sites)
    facts = prompted.facts
    settings = settings_of(config, site.spec, facts.kind, facts.hidden_size)
    zero_shot = None if data.test is None else prompted.zero_shot_logits(data.test)
    answer = site.setup({**settings, "popsize": config.popsize}, zero_shot)
    seconds = time.monotonic() - started  # of loading too
    return site, replace(answer, counters=replace(answer.counters, seconds=seconds), dtype=facts.dtype)


def open_site(
    config: FedBPTConfig, name: str, sites: Sequence[str]
) -> tuple[FedBPTSite, PromptedModel | RemotePromptedModel, SiteData]:
    """Load data, and the model or find the service that has it.

    Args:
        config: the site's options.
        name: the site's name.
        sites: names of all sites of the job, in the order of their shares.

    Raises:
        UserError: whatever the user can correct.
    """
    spec, data = load_data(config, name, sites)
    prompted = _open_model(config, spec)
    return site_on(config, name, spec, data, prompted), prompted, data


def site_on(
    config: FedBPTConfig, name: str, spec: TaskSpec, data: SiteData, prompted: PromptedModel | RemotePromptedModel
) -> FedBPTSite:
    """The site of these data, on a model that is there; several sites may ask the same one in turn."""
    from flaretune.methods.fedbpt.client import FedBPTSite, Labelled, SearchSettings

    return FedBPTSite(
        name,
        spec,
        prompted.black_box,
        Labelled(prompted.register(data.train), data.train.labels),
        Labelled(prompted.register(data.dev), data.dev.labels),
        None if data.test is None else Labelled(prompted.register(data.test), data.test.labels),
        partial(prompted.register_perturbed, data.train, config.perturb_rate) if config.perturb else None,
        build(SearchSettings, {**as_dict(config), "popsize": config.popsize}),
    )


def _open_model(config: FedBPTConfig, spec: TaskSpec) -> PromptedModel | RemotePromptedModel:
    """The model in this process, or that of a service, where this process needs neither torch nor weights."""
    settings = build(PromptSettings, as_dict(config))
    if config.model_server != "local":
        return open_remote_model(
            config.model_server,
            _token(config),
            spec,
            config.model_name,
            config.dtype,
            settings,
            answer_seconds=config.model_server_timeout,
        )
    # torch and transformers take seconds to import: only now that NVFlare knows this process
    from flaretune.models.prompted import open_prompted_model

    return open_prompted_model(
        spec,
        config.model_name,
        settings,
        dtype=config.dtype,
        device=config.device,
        batch_size=config.batch_size,
        cache_mb=config.cache_mb,
    )


def _token(config: FedBPTConfig) -> str:
    """The service's token, which is read at the site and is no part of the job.

    Raises:
        UserError: what the reference names is not there.
    """
    if not config.model_server_token:
        return os.environ.get(TOKEN_VARIABLE, "")
    try:
        return resolve_secret_refs(config.model_server_token)
    except ValueError as error:
        raise UserError(f"--model_server_token: {error}") from error
