"""A FedBPT site as an NVFlare client: what it answers to each of the server's tasks."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flaretune.config.fedbpt import FedBPTConfig
from flaretune.config.options import as_dict, build
from flaretune.errors import UserError
from flaretune.flare import fedbpt_messages, messages
from flaretune.flare.site_script import LOCAL_OPTIONS, Handler, load_data, read_task, run_script, settings_of

if TYPE_CHECKING:
    from nvflare.app_common.abstract.fl_model import FLModel

    from flaretune.data.site_data import SiteData
    from flaretune.fedbpt.site import FedBPTSite
    from flaretune.models.prompted import PromptedModel
    from flaretune.tasks.evaluation import SetupAnswer

log = logging.getLogger("flaretune.site")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the site's script; see `run_script`."""
    run_script(FedBPTConfig, FedBPTTasks, argv)


class FedBPTTasks:
    """What this site answers to each task of a job."""

    def __init__(self, config: FedBPTConfig):
        self._config = config
        self._site: FedBPTSite | None = None

    def handlers(self) -> dict[str, Handler]:
        return {messages.SETUP: self._setup, fedbpt_messages.SEARCH: self._search, messages.EVALUATE: self._evaluate}

    def _setup(self, _task: FLModel, name: str, sites: list[str]) -> FLModel:
        self._site, answer = set_up(self._config, name, sites)
        return messages.setup_answer(answer)

    def _search(self, task: FLModel, name: str, sites: list[str]) -> FLModel:
        received = read_task(fedbpt_messages.read_search_task, task)
        return fedbpt_messages.search_answer(self._opened(name, sites).search(*received))

    def _evaluate(self, task: FLModel, name: str, sites: list[str]) -> FLModel:
        point = read_task(fedbpt_messages.read_evaluate_task, task)
        return messages.evaluate_answer(self._opened(name, sites).evaluate(point))

    def _opened(self, name: str, sites: list[str]) -> FedBPTSite:
        if self._site is None:  # this process was started anew, as the simulator does with fewer threads than clients
            self._site = open_site(self._config, name, sites)[0]
        return self._site


def set_up(config: FedBPTConfig, name: str, sites: Sequence[str]) -> tuple[FedBPTSite, SetupAnswer]:
    """Open a site, and evaluate the model alone and the initial prompt; see `open_site`."""
    started = time.monotonic()
    site, prompted, data = open_site(config, name, sites)
    settings = settings_of(
        config,
        (*LOCAL_OPTIONS, "cache_mb", "llama_causal"),
        prompted.spec,
        prompted.pretrained,
        prompted.black_box.hidden_size,
    )
    zero_shot = None if data.test is None else prompted.zero_shot_logits(data.test)
    answer = site.setup({**settings, "popsize": config.popsize}, zero_shot)
    seconds = time.monotonic() - started  # of loading too
    return site, replace(answer, counters=replace(answer.counters, seconds=seconds))


def open_site(config: FedBPTConfig, name: str, sites: Sequence[str]) -> tuple[FedBPTSite, PromptedModel, SiteData]:
    """Load data and model.

    Args:
        config: the site's options.
        name: the site's name.
        sites: names of all sites of the job, in the order of their shares.

    Raises:
        UserError: whatever the user can correct.
    """
    # torch and transformers take seconds to import: only now that NVFlare knows this process
    import numpy as np

    from flaretune.data.perturb import perturb, replaceable_ids
    from flaretune.fedbpt.site import FedBPTSite, Labelled, SearchSettings
    from flaretune.models.prompted import PromptSettings, open_prompted_model

    if config.num_users and config.num_users != len(sites):
        log.warning(
            "--num_users %d, but the job has %d sites: the data is shared out over those", config.num_users, len(sites)
        )
    spec, data = load_data(config, name, sites)
    prompted = open_prompted_model(
        spec,
        config.model_name,
        build(PromptSettings, as_dict(config)),
        dtype=config.dtype,
        device=config.device,
        batch_size=config.batch_size,
        cache_mb=config.cache_mb,
    )
    if not config.llama_causal and prompted.pretrained.model.config.model_type == "llama":
        raise UserError("--llama_causal 0: LLaMA answers as a causal language model only; leave the option at 1")
    encoded = [prompted.encoder.encode(texts) for texts in data.train.texts]
    black_box = prompted.black_box

    def perturbed(seed: int):
        rng, vocabulary = np.random.default_rng(seed), replaceable_ids(prompted.pretrained.tokenizer)
        return black_box.register([perturb(e, config.perturb_rate, vocabulary, rng) for e in encoded])

    site = FedBPTSite(
        name,
        spec,
        black_box,
        Labelled(black_box.register(encoded), data.train.labels),
        Labelled(prompted.register(data.dev), data.dev.labels),
        None if data.test is None else Labelled(prompted.register(data.test), data.test.labels),
        perturbed if config.perturb else None,
        build(SearchSettings, {**as_dict(config), "popsize": config.popsize}),
    )
    return site, prompted, data
