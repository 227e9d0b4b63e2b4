"""A FedBPT site as an NVFlare client: flags in, then a loop over the server's tasks until the job ends."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from flaretune.config import SiteConfig, as_dict, build, parse_site_flags
from flaretune.errors import UserError

if TYPE_CHECKING:
    from nvflare.app_common.abstract.fl_model import FLModel

    from flaretune.data.site_data import SiteData
    from flaretune.fedbpt.answers import SetupAnswer
    from flaretune.fedbpt.site import FedBPTSite
    from flaretune.models.prompted import PromptedModel

log = logging.getLogger("flaretune.site")

# Options that may differ from site to site; all others must be the same for the answers to fit together.
LOCAL_OPTIONS = (
    "dataset", "data_path", "task_name", "task_file", "model_name", "device", "dtype", "batch_size", "cache_mb",
    "llama_causal",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run the site's script: never returns, exits with 0 at the end of the job and with 1 after one clear sentence.

    `os._exit` because NVFlare's threads would keep the process of a failed script alive until the server's
    heartbeat timeout.
    """
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("flaretune").setLevel(logging.INFO)
    try:
        config, sentences = parse_site_flags(sys.argv[1:] if argv is None else argv)
        for sentence in sentences:
            log.warning(sentence)
        serve(config)
        status = 0
    except (UserError, FloatingPointError) as error:
        log.error("%s", error)
        status = 1
    except SystemExit as error:  # argparse has said what is wrong
        status = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        log.error("unexpected %s: %s\n%s", type(error).__name__, error, traceback.format_exc())
        status = 1
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def serve(config: SiteConfig) -> None:
    """Answer the server's tasks until the job ends."""
    # Arrays in the message itself: a download of its own would block this site if the server gave up waiting.
    os.environ.setdefault("NVFLARE_NP_DOWNLOAD_CHUNK_SIZE", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import nvflare.client as flare

    from flaretune.flare import exchange

    flare.init()
    name = flare.get_site_name()
    site = None
    while flare.is_running():
        task = flare.receive()
        if task is None:
            break
        kind, sites = flare.get_task_name(), _read(exchange.read_sites, task)
        if kind == exchange.SETUP:
            site, answer = set_up(config, name, sites)
            reply = exchange.setup_answer(answer)
        else:
            if site is None:  # this process was started anew, as the simulator does with fewer threads than clients
                site = open_site(config, name, sites)[0]
            if kind == exchange.SEARCH:
                reply = exchange.search_answer(site.search(*_read(exchange.read_search_task, task)))
            elif kind == exchange.EVALUATE:
                reply = exchange.evaluate_answer(site.evaluate(_read(exchange.read_evaluate_task, task)))
            else:
                raise UserError(f"the server sent the task {kind!r}, which this version does not know")
        flare.send(reply)


def _read(reader: Callable[[FLModel], Any], task: FLModel) -> Any:
    """What a reader of `exchange` makes of the server's message, or one sentence if it makes nothing of it."""
    try:
        return reader(task)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the server's message cannot be read ({error}): server and sites need the same version of flaretune"
        ) from error


def set_up(config: SiteConfig, name: str, sites: Sequence[str]) -> tuple[FedBPTSite, SetupAnswer]:
    """Open a site, and evaluate the model alone and the initial prompt; see `open_site`."""
    from flaretune.tasks.spec import task_table

    started = time.monotonic()
    site, prompted, data = open_site(config, name, sites)
    task = {key: value for key, value in task_table(prompted.spec).items() if key != "source"}
    settings = {
        "options": {item.name: getattr(config, item.name) for item in fields(config) if item.name not in LOCAL_OPTIONS},
        "popsize": config.popsize,
        "task": {"name": prompted.spec.name, **task},
        "model": {
            "name": config.model_name,
            "kind": prompted.pretrained.kind,
            "hidden_size": prompted.black_box.hidden_size,
        },
    }
    zero_shot = None if data.test is None else prompted.zero_shot_logits(data.test)
    answer = site.setup(settings, zero_shot)
    seconds = time.monotonic() - started  # of loading too
    return site, replace(answer, counters=replace(answer.counters, seconds=seconds))


def open_site(config: SiteConfig, name: str, sites: Sequence[str]) -> tuple[FedBPTSite, PromptedModel, SiteData]:
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
    from flaretune.data.site_data import Split, own_data, share_of_common_set
    from flaretune.fedbpt.site import FedBPTSite, Labelled, SearchSettings
    from flaretune.models.load import resolve_device
    from flaretune.models.prompted import PromptSettings, open_prompted_model
    from flaretune.tasks.spec import load_task

    spec = load_task(config.task)
    resolve_device(config.device)  # before the data is read: what is wrong is said at once
    evaluators = evaluation_sites(config.eval_clients, sites)
    if config.data_path:
        data = own_data(spec, config.data_path, config.k_shot, config.seed, name in evaluators)
    else:
        n_shares = number_of_shares(config.num_users, len(sites))
        split = Split(config.k_shot, n_shares, bool(config.iid), config.alpha_dir, config.seed)
        test_part = (evaluators.index(name), len(evaluators)) if name in evaluators else None
        data = share_of_common_set(spec, config.dataset or None, split, list(sites).index(name), test_part)

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


def evaluation_sites(wanted: str, sites: Sequence[str]) -> list[str]:
    """The sites that evaluate on test data: ``first``, ``all``, or those named, as far as they are in the job.

    Raises:
        UserError: none of the names is a site of the job.
    """
    if wanted in ("first", "all"):
        return list(sites) if wanted == "all" else list(sites[:1])
    names = [name.strip() for name in wanted.split(",")]
    absent = [name for name in names if name not in sites]
    if absent:
        log.warning("--eval_clients: %s not in this job, whose sites are %s", ", ".join(absent), ", ".join(sites))
    present = [name for name in names if name in sites]
    if not present:
        raise UserError(
            f"--eval_clients {wanted}: none of these is a site of this job ({', '.join(sites)}); "
            "use their names, first, or all"
        )
    return present


def number_of_shares(num_users: int, n_sites: int) -> int:
    """Shares that a common data set is cut into: as many as the job has sites, whatever the option says."""
    if num_users and num_users != n_sites:
        log.warning("--num_users %d, but the job has %d sites: the data is shared out over those", num_users, n_sites)
    return n_sites
