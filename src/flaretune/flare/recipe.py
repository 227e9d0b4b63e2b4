"""What the NVFlare recipes of both methods share: a job that carries flaretune's code, or configuration alone."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from nvflare.apis.executor import Executor
from nvflare.apis.job_def import ALL_SITES
from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor
from nvflare.app_opt.tracking.tb.tb_receiver import TBAnalyticsReceiver
from nvflare.job_config.api import FedJob
from nvflare.recipe.run import Run
from nvflare.recipe.spec import ExecEnv, Recipe

import flaretune
from flaretune.config.client import PATHS, ClientConfig
from flaretune.config.client_flags import refuse_own_data
from flaretune.config.flags import to_argv
from flaretune.config.job import CARRIED, CODE, check_name
from flaretune.config.options import as_dict, build, changed
from flaretune.errors import UserError
from flaretune.flare.environment import variable
from flaretune.flare.rounds_controller import RoundsController
from flaretune.flare.site_executor import LAUNCH_TIMEOUT, SiteExecutor, script_file
from flaretune.flare.tracking import RunTracking
from flaretune.tasks.spec import data_beside, load_task, local_tasks, task_file

THREADS = "OMP_NUM_THREADS"
LOG_CONFIG = str(Path(__file__).with_name("log_config.json"))  # for SimEnv: a line a round, and none of NVFlare's own


def _shared_cores(processes: int) -> AbstractContextManager[None]:
    """Let so many processes, as sites on this machine are, share its cores, unless the user has said otherwise."""
    share = max(1, len(os.sched_getaffinity(0)) // processes)
    return variable(THREADS, os.environ.get(THREADS) or str(share))


class FlaretuneRecipe(Recipe):
    """A job of one of the methods, to run in an environment (`SimEnv`, `PocEnv`, `ProdEnv`) or to export.

    The job carries flaretune's code, unless that is installed at the server and the sites, and the file of a task that
    flaretune does not ship.

    Args:
        site_config: what every site is told.
        controller: the server's part.
        tasks: names of the tasks that it gives the sites.
        name: of the job.
        per_site: by site name, options of the site's config that differ there, such as ``data_path`` or ``device``.
            If given, the job is deployed to these sites only.
        code: ``carried``, for server and sites that let a job bring code, or ``installed``, for those that have
            flaretune themselves and allow its classes: the job is then configuration alone.

    Raises:
        UserError: an option or a site's option is unknown or out of its range.
    """

    def __init__(
        self,
        site_config: ClientConfig,
        controller: RoundsController,
        tasks: Sequence[str],
        *,
        name: str,
        per_site: Mapping[str, Mapping[str, Any]] | None = None,
        code: str = CARRIED,
    ):
        check_name("the job's name", name)
        if code not in CODE:
            raise UserError(f"code {code!r}: must be one of {', '.join(CODE)}")
        job = FedJob(name=name, min_clients=controller.min_clients)
        job.to_server(controller, id=f"{type(controller).__name__.removesuffix('Controller').lower()}_controller")
        job.to_server(TBAnalyticsReceiver(), id="tensorboard")
        self._transfer = {"np_download_chunk_size": 0} if site_config.inline_arrays else {}
        job.to_server({"server": {"task_request_interval": 0.05}, **self._transfer})
        super().__init__(job)
        self._tasks = list(tasks)
        self._script = site_config.script()
        self._staging = tempfile.TemporaryDirectory(prefix="flaretune-job-")
        self._carries_code = code == CARRIED
        if self._carries_code:
            job.add_file_to_server(str(self._code_folder()))
        else:
            job.set_app_packages([flaretune.__name__])  # or NVFlare would copy the modules of its components
        self._site_config = site_config
        self._site_configs: dict[str, ClientConfig] = {}
        if per_site:
            self.set_per_site_config({site: dict(options) for site, options in per_site.items()})

    def run(self, env: ExecEnv, **exec_params: Any) -> Run:
        """Run in an environment; one with fewer clients than `min_clients` starts with all it has."""
        available = getattr(env, "num_clients", None)
        if available:  # the simulator or a proof of concept, whose sites run on this machine
            self._job.job.min_clients = min(self._job.job.min_clients, available)
            # the sites' command is `python3 …`, looked up in PATH: let it find this Python
            os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
            with _shared_cores(getattr(env, "num_threads", None) or available):
                return super().run(env, **exec_params)
        return super().run(env, **exec_params)

    def track(self, tracker: str, uri: str = "") -> None:
        """Keep the run's numbers in MLflow or Weights & Biases as well (see `RunTracking`)."""
        self._job.to_server(RunTracking(tracker, uri), id="tracking")

    def _apply_per_site_config(self, config: dict[str, dict]) -> None:
        """Make each site's options from the common ones and its own (called by `set_per_site_config`)."""
        known = as_dict(self._site_config)
        for site, options in config.items():
            check_name("site", site)
            unknown = sorted(set(options) - set(known))
            if unknown:
                raise UserError(f"site {site}: there is no option {unknown[0]!r}; there are {', '.join(known)}")
            if options.get("dp_public_test", self._site_config.dp_public_test):
                refuse_own_data({n: v for n, v in options.items() if v != known[n]}, f"site {site}: ")
            self._site_configs[site] = build(type(self._site_config), {**known, **options})

    def _prepare_client_apps(self) -> None:
        if not self._site_configs:
            self._add_site(None, self._site_config)
        for site, config in self._site_configs.items():
            self._add_site(site, config)

    def _add_site(self, site: str | None, config: ClientConfig) -> None:
        """Add the client app of one site, or of all where `site` is None."""
        load_task(config.task)  # what is wrong with it is said now, and not at every site
        if not config.task_file and config.task_name in local_tasks():
            config = changed(config, task_file=str(task_file(config.task_name)))
        if config.task_file and not (config.dataset or config.data_path):
            config = changed(config, dataset=data_beside(config.task_file))  # relative to where it lies now
        here = {name: value for name in PATHS if (value := getattr(config, name, ""))}
        config = changed(config, **{k: str(Path(v).absolute()) for k, v in here.items() if Path(v).exists()})
        target = site or ALL_SITES
        if config.task_file:
            file = Path(config.task_file)
            self._job.add_file_to(str(file), target, app_folder_type="config")
            config = changed(config, task_file=f"config/{file.name}")  # seen from the site's working folder
        self._job.to(self._executor(config), target, tasks=self._tasks)
        if self._transfer:
            self._job.to(dict(self._transfer), target)
        if self._carries_code:
            self._job.add_file_to(str(self._code_folder()), target)

    def _executor(self, config: ClientConfig) -> Executor:
        """What starts a site's script with its options."""
        if not self._carries_code:
            return SiteExecutor(self._script, to_argv(config))
        return ClientAPIExecutor(
            execution_mode="external_process",
            command=["python3", "-u", f"custom/{self._script}", *to_argv(config)],
            launch_timeout=LAUNCH_TIMEOUT,
            server_expected_format="raw",
        )

    def _code_folder(self) -> Path:
        """A folder with the code that a job carries, which lives as long as this recipe."""
        folder = Path(tempfile.mkdtemp(dir=self._staging.name))
        package = Path(flaretune.__file__).parent
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(script_file(self._script), folder)
        return folder
