"""What the sites' scripts of both methods do: flags in, then a loop over the server's tasks until the job ends."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flaretune.config.client import ClientConfig
from flaretune.config.client_flags import read_client_config
from flaretune.config.options import as_dict, build
from flaretune.errors import UserError, lack_of_memory
from flaretune.flare import messages
from flaretune.privacy.release import PrivacySettings, Releases

if TYPE_CHECKING:
    from nvflare.app_common.abstract.fl_model import FLModel

    from flaretune.data.site_data import SiteData
    from flaretune.tasks.spec import Kind, TaskSpec

log = logging.getLogger("flaretune.site")

# The site's own workspace, above the folder of the job that a script starts in: what lies there outlives a job.
WORKSPACE = Path("..", "..")
STATES = Path("flaretune_state")  # what a site keeps with the job
SITE_FILE = WORKSPACE / "local" / "flaretune.toml"  # beside the site's other NVFlare settings

# Answers a task's message: (the message, the site's name, the names of all sites of the job).
Handler = Callable[["FLModel", str, list[str]], "FLModel"]


class HasHandlers(Protocol):
    """A method's answers to the server's tasks."""

    def handlers(self) -> dict[str, Handler]:
        """What answers each task, by its name."""


def run_script(
    config: type[ClientConfig],
    tasks: Callable[[ClientConfig], HasHandlers],
    argv: Sequence[str] | None = None,
) -> None:
    """Run a site's script: never returns, exits with 0 at the end of the job and with 1 after one clear sentence.

    `os._exit` because NVFlare's threads would keep the process of a failed script alive until the server's
    heartbeat timeout.

    Args:
        config: the method's options.
        tasks: makes what answers the server's tasks, given the options.
        argv: flags; None for the command line's.
    """
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("flaretune").setLevel(logging.INFO)
    try:
        options, sentences = read_client_config(config, sys.argv[1:] if argv is None else argv, SITE_FILE)
        for sentence in sentences:
            log.warning(sentence)
        _serve(tasks(options), options.inline_arrays)
        status = 0
    except (UserError, FloatingPointError) as error:
        log.error("%s", error)
        status = 1
    except SystemExit as error:  # argparse has said what is wrong
        status = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        if sentence := lack_of_memory(error):
            log.error(sentence)
        else:
            log.error("unexpected %s: %s\n%s", type(error).__name__, error, traceback.format_exc())
        status = 1
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _serve(tasks: HasHandlers, inline_arrays: bool) -> None:
    """Answer the server's tasks until the job ends."""
    if inline_arrays:  # a download would block this site for minutes if the server gave up waiting
        os.environ.setdefault("NVFLARE_NP_DOWNLOAD_CHUNK_SIZE", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import nvflare.client as flare

    handlers = tasks.handlers()
    flare.init()
    name = flare.get_site_name()
    while flare.is_running():
        task = flare.receive()
        if task is None:
            break
        kind, sites = flare.get_task_name(), read_task(messages.read_sites, task)
        if kind not in handlers:
            raise UserError(f"the server sent the task {kind!r}, which this version does not know")
        if name not in sites:
            raise UserError(f"the server's sites, {', '.join(sites)}, are without this one, {name}")
        flare.send(handlers[kind](task, name, sites))


def read_task(reader: Callable[[FLModel], Any], task: FLModel) -> Any:
    """What a reader of `messages` makes of the server's message, or one sentence if it makes nothing of it."""
    try:
        return reader(task)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the server's message cannot be read ({error}): server and sites need the same version of flaretune"
        ) from error


def state_folder(config: ClientConfig, task: FLModel, name: str) -> Path:
    """Where this site keeps what its next process needs: with the job, or, if the server keeps the run, beyond it."""
    run, _ = read_task(messages.read_run, task)
    beyond = Path(config.state_dir).expanduser() if config.state_dir else WORKSPACE / "flaretune_runs"
    return (beyond / run if run else STATES) / name


def open_releases(config: ClientConfig, task: FLModel, name: str) -> Releases | None:
    """What noises and counts this site's answers; None where they are not noised.

    Raises:
        UserError: see `Releases`.
    """
    return (
        Releases(build(PrivacySettings, as_dict(config)), state_folder(config, task, name)) if config.dp_noise else None
    )


def settings_of(config: ClientConfig, spec: TaskSpec, kind: Kind, hidden_size: int) -> dict[str, Any]:
    """What the sites of a job must agree on, for the setup answer; plain JSON values without paths of data.

    Args:
        config: the site's options.
        spec: the task.
        kind: of the model.
        hidden_size: of its embeddings.
    """
    from flaretune.tasks.spec import task_table

    task = {key: value for key, value in task_table(spec).items() if key != "source"}
    return {
        "method": config.method,
        "options": {name: value for name, value in as_dict(config).items() if name not in config.client_options},
        "task": {"name": spec.name, **task},
        "model": {"name": config.model_name, "kind": kind, "hidden_size": hidden_size},
    }


def load_data(config: ClientConfig, name: str, sites: Sequence[str], unlabelled: int = 0) -> tuple[TaskSpec, SiteData]:
    """The task, and this site's examples of it.

    Args:
        config: the site's options.
        name: the site's name.
        sites: names of all sites of the job, in the order of their shares.
        unlabelled: unlabelled texts, see `Split` and `own_data`.

    Raises:
        UserError: whatever the user can correct.
    """
    from flaretune.data.site_data import Split, own_data, share_of_common_set
    from flaretune.tasks.spec import load_task

    spec = load_task(config.task)
    if config.device != "auto":  # before the data is read: what is wrong is said at once
        from flaretune.models.load import resolve_device

        resolve_device(config.device)
    evaluators = evaluation_sites(config.eval_clients, sites)
    if config.data_path:
        return spec, own_data(
            spec, config.data_path, config.k_shot, config.seed, name in evaluators, unlabelled=unlabelled
        )
    split = Split(config.k_shot, len(sites), bool(config.iid), config.alpha_dir, config.seed, unlabelled=unlabelled)
    test_part = (evaluators.index(name), len(evaluators)) if name in evaluators else None
    return spec, share_of_common_set(spec, config.dataset or None, split, list(sites).index(name), test_part)


def evaluation_sites(wanted: str, sites: Sequence[str]) -> list[str]:
    """The sites that evaluate on test data: ``first``, ``all``, or those named, as far as they are in the job.

    Raises:
        UserError: none of the names is a site of the job.
    """
    if wanted in ("first", "all"):
        return list(sites) if wanted == "all" else list(sites[:1])
    names = list(dict.fromkeys(name.strip() for name in wanted.split(",")))  # each once: they share the test data
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
