"""NVFlare recipes of the methods: a job that carries flaretune's code, or configuration alone."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

from nvflare.apis.job_def import ALL_SITES
from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor
from nvflare.app_opt.tracking.tb.tb_receiver import TBAnalyticsReceiver
from nvflare.job_config.api import FedJob
from nvflare.recipe import SimEnv
from nvflare.recipe.run import Run
from nvflare.recipe.spec import ExecEnv, Recipe

import flaretune
from flaretune.config.client import PATHS, ClientConfig
from flaretune.config.client_flags import check_complete, laid_over, refuse_own_data
from flaretune.config.job import CARRIED, CODE, check_clients, check_name
from flaretune.config.options import as_dict, build, changed, not_default, split_options
from flaretune.config.server import ServerConfig
from flaretune.engine.codec import TASKS
from flaretune.engine.summary import write_json
from flaretune.errors import UserError, near
from flaretune.flare.controller import FlaretuneController
from flaretune.flare.executor import OPTIONS, ClientExecutor, script_arguments, script_file
from flaretune.flare.fixes.simulator_paths import plain_paths
from flaretune.flare.outcome import telling_why
from flaretune.flare.tracking import RunTracking
from flaretune.host import variable
from flaretune.methods.base import Method
from flaretune.methods.client_data import task_of
from flaretune.methods.registry import find_method
from flaretune.tasks.spec import data_beside, local_tasks, task_file

THREADS = "OMP_NUM_THREADS"
LOG_CONFIG = str(Path(__file__).with_name("log_config.json"))  # for SimEnv: a line a round, and none of NVFlare's own


def _shared_cores(processes: int) -> AbstractContextManager[None]:
    """Let so many processes, as clients on this machine are, share its cores, unless the user has said otherwise."""
    share = max(1, len(os.sched_getaffinity(0)) // processes)
    return variable(THREADS, os.environ.get(THREADS) or str(share))


class FlaretuneRecipe(Recipe):
    """A job of a method, to run in an environment (`SimEnv`, `PocEnv`, `ProdEnv`) or to export.

    The job carries flaretune's code, unless that is installed at the server and the clients, and the file of a task
    that flaretune does not ship.

    Args:
        client_config: what every client is told; None for the method's defaults with `options`.
        server_config: what the server is told; None likewise.
        method: name of the method; None for that of the class.
        name: of the job; None for the method's.
        per_client: by client name, options that differ there, such as ``data_path`` or ``device``. If given, the job
            is deployed to these clients only.
        code: ``carried``, for server and clients that let a job bring code, or ``installed``, for those that have
            flaretune themselves and allow its classes: the job is then configuration alone.
        options: options of clients and server by name, in place of the two configs.

    Raises:
        UserError: an option or a client's option is unknown or out of its range.

    Example:
        >>> from nvflare.recipe import SimEnv
        >>> recipe = FedBPTRecipe(
        ...     task_file="my_task.toml",
        ...     model_name="roberta-large",
        ...     num_rounds=20,
        ...     per_client={"hospital-a": {"data_path": "/data/a.csv"}, "hospital-b": {"data_path": "/data/b.csv"}},
        ... )
        >>> run = recipe.execute(SimEnv(clients=["hospital-a", "hospital-b"]))  # doctest: +SKIP
    """

    method_name: ClassVar[str] = ""

    def __init__(
        self,
        client_config: ClientConfig | None = None,
        server_config: ServerConfig | None = None,
        *,
        method: str | None = None,
        name: str | None = None,
        per_client: Mapping[str, Mapping[str, Any]] | None = None,
        code: str = CARRIED,
        **options: Any,
    ):
        self._method = find_method(method or self.method_name)
        client_config, server_config = _configs(self._method, client_config, server_config, options)
        name = name or self._method.name
        check_name("the job's name", name)
        if code not in CODE:
            raise UserError(f"code {code!r}: must be one of {', '.join(CODE)}")
        controller = FlaretuneController(self._method.name, as_dict(self._method.on_this_machine(server_config)))
        controller.options = {option: _literal(value) for option, value in controller.options.items()}
        job = FedJob(name=name, min_clients=server_config.min_clients)
        job.to_server(controller, id="controller")
        job.to_server(TBAnalyticsReceiver(), id="tensorboard")
        self._transfer = {"np_download_chunk_size": 0} if client_config.inline_arrays else {}
        job.to_server({"server": {"task_request_interval": 0.05}, **self._transfer})
        super().__init__(job)
        self._staging = tempfile.TemporaryDirectory(prefix="flaretune-job-")
        self._carries_code = code == CARRIED
        if self._carries_code:
            job.add_file_to_server(str(self._code_folder()))
        else:
            job.set_app_packages([flaretune.__name__])  # or NVFlare would copy the modules of its components
        self._client_config = client_config
        self._client_configs: dict[str, ClientConfig] = {}
        if per_client:
            self.set_per_site_config({client: dict(own) for client, own in per_client.items()})

    def run(self, env: ExecEnv, **exec_params: Any) -> Run:
        """Run in an environment; one with fewer clients than `min_clients` starts with all it has.

        Raises:
            SimulationFailed: a simulated job failed; says what went wrong at whom.
        """
        check_clients("client", getattr(env, "clients", None) or [])
        available = getattr(env, "num_clients", None)
        if available:  # the simulator or a proof of concept, whose clients run on this machine
            self._job.job.min_clients = min(self._job.job.min_clients, available)
            # the clients' command is `python3 …`, looked up in PATH: let it find this Python
            os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
            simulated = isinstance(env, SimEnv)
            why = telling_why(Path(env.workspace_root) / self._job.name) if simulated else nullcontext()
            paths = plain_paths(env) if simulated else nullcontext()
            with _shared_cores(getattr(env, "num_threads", None) or available), why, paths:
                return super().run(env, **exec_params)
        return super().run(env, **exec_params)

    def track(self, tracker: str, uri: str = "") -> None:
        """Keep the run's numbers in MLflow or Weights & Biases as well (see `RunTracking`)."""
        self._job.to_server(RunTracking(tracker, _literal(uri)), id="tracking")

    def _apply_per_site_config(self, config: dict[str, dict]) -> None:
        """Make each client's options from the common ones and its own (called by `set_per_site_config`)."""
        known = as_dict(self._client_config)
        check_clients("client", list(config))
        for client, own in config.items():
            unknown = sorted(set(own) - set(known))
            if unknown:
                raise UserError(f"client {client}: there is no option {unknown[0]!r}; {near(unknown[0], known)}")
            if own.get("dp_public_test", self._client_config.dp_public_test):
                refuse_own_data({n: v for n, v in own.items() if v != known[n]}, f"client {client}: ")
            self._client_configs[client] = build(type(self._client_config), laid_over(known, own))

    def check(self) -> None:
        """Say what is wrong with the clients' options and tasks now, and not at every client.

        Raises:
            UserError: something is.
        """
        for config in self._client_configs.values() or [self._client_config]:
            check_complete(config)
            task_of(config)

    def _prepare_client_apps(self) -> None:
        self.check()
        if not self._client_configs:
            self._add_client(None, self._client_config)
        for client, config in self._client_configs.items():
            self._add_client(client, config)

    def _add_client(self, client: str | None, config: ClientConfig) -> None:
        """Add the app of one client, or of all where `client` is None."""
        if not config.task_file and config.task_name in local_tasks():
            config = changed(config, task_file=str(task_file(config.task_name)))
        if config.task_file and not (config.dataset or config.data_path):
            config = changed(config, dataset=data_beside(config.task_file))  # relative to where it lies now
        here = {name: value for name in PATHS if (value := getattr(config, name, ""))}
        config = changed(config, **{k: str(Path(v).absolute()) for k, v in here.items() if Path(v).exists()})
        target = client or ALL_SITES
        if config.task_file:
            file = task_file(config.task_file)
            self._job.add_file_to(str(file), target, app_folder_type="config")
            config = changed(config, task_file=f"config/{file.name}")  # seen from the client's working folder
        options = Path(tempfile.mkdtemp(dir=self._staging.name)) / Path(OPTIONS).name
        write_json(not_default(config), options)
        self._job.add_file_to(str(options), target, app_folder_type="config")
        if self._carries_code:
            command = ["python3", "-u", f"custom/{self._method.client_script}"]
            self._job.to(ClientAPIExecutor(**script_arguments(command)), target, tasks=list(TASKS))
            self._job.add_file_to(str(self._code_folder()), target)
        else:
            self._job.to(ClientExecutor(self._method.name), target, tasks=list(TASKS))
        if self._transfer:
            self._job.to(dict(self._transfer), target)

    def _code_folder(self) -> Path:
        """A folder with the code that a job carries, which lives as long as this recipe."""
        folder = Path(tempfile.mkdtemp(dir=self._staging.name))
        package = Path(flaretune.__file__).parent
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(script_file(self._method.client_script), folder)
        return folder


class FedBPTRecipe(FlaretuneRecipe):
    """A FedBPT job; see `FlaretuneRecipe`."""

    method_name = "fedbpt"


class LPFLRecipe(FlaretuneRecipe):
    """An LP-FL job; see `FlaretuneRecipe`."""

    method_name = "lpfl"


class VerbalizerRecipe(FlaretuneRecipe):
    """A job of the learned verbalizer; see `FlaretuneRecipe`."""

    method_name = "verbalizer"


def _literal(value: Any) -> Any:
    """An argument as it must stand in a job, where NVFlare 2.9 takes what is in braces for the name of a variable."""
    return value.replace("{", "{{").replace("}", "}}") if isinstance(value, str) else value


def _configs(
    method: Method, client: ClientConfig | None, server: ServerConfig | None, options: Mapping[str, Any]
) -> tuple[ClientConfig, ServerConfig]:
    """The configs that are given, or those of the options by name."""
    if not options:
        return client or method.client_config(), server or method.server_config()
    if client or server:
        raise UserError(f"give options by name or configs, not both: {', '.join(options)}")
    return split_options(options, method.client_config, method.server_config)
