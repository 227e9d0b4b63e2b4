"""A job run in an environment (simulator, proof of concept, federation) or exported, and its results collected."""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from flaretune.config.client import ClientConfig
from flaretune.config.job import CARRIED, JobConfig
from flaretune.config.model_server import ServiceConfig
from flaretune.config.options import as_dict, build, changed, default
from flaretune.config.server import ServerConfig
from flaretune.engine.results import collect_results, forget_results, read_summary
from flaretune.engine.summary import write_json
from flaretune.errors import UserError
from flaretune.methods.base import Method
from flaretune.model_server.launch import running_model_server

EXPORTING = "--export" in sys.argv  # looked up before NVFlare takes it
with warnings.catch_warnings():
    # NVFlare takes --export and --export-dir from the command line when this is imported, and warns of it.
    warnings.filterwarnings("ignore", message="NVFlare reserves '--export'")
    from nvflare.recipe import ProdEnv, SimEnv
    from nvflare.recipe.spec import ExecEnv

from flaretune.flare.outcome import Failures, SimulationFailed, failures_in  # noqa: E402
from flaretune.flare.poc_env import PatientPocEnv  # noqa: E402
from flaretune.flare.recipe import LOG_CONFIG, FlaretuneRecipe  # noqa: E402
from flaretune.flare.stopping import Stopped, ending_what_it_starts  # noqa: E402
from flaretune.flare.tracking import check_tracker  # noqa: E402
from flaretune.flare.watch import SUCCESS, administrator_of  # noqa: E402


class Ended(Exception):
    """A job ended badly."""

    def __init__(self, reason: str, failures: Failures):
        super().__init__(reason)
        self.failures = failures


def output_of(job: JobConfig) -> Path:
    """Folder of a job's results."""
    return Path(job.output or f"runs/{job.name}")


def run_job(
    method: Method,
    job: JobConfig,
    client: ClientConfig,
    server: ServerConfig,
    per_client: Mapping[str, Mapping[str, Any]],
    quiet: bool = False,
) -> Failures:
    """Run or export a job, with a server for its model if its clients share one, and collect its results.

    Returns:
        What went wrong at clients that the job did without.

    Raises:
        UserError: options do not go together.
        Ended: the job failed.
        Stopped: it was told to stop.
    """
    if not job.share_model:
        return _run(method, job, client, server, per_client, quiet)
    if not method.shares_model:
        raise UserError(
            f"--share_model 1 starts a model server for FedBPT's clients; those of {method.title} cannot use one of "
            "flaretune's: leave it out"
        )
    if job.env == "prod" or EXPORTING:
        raise UserError(
            "--share_model 1 is for jobs that run on this machine; for others run `python -m flaretune serve` on each "
            "machine and give --model_server"
        )
    if client.model_server != "local":
        raise UserError(
            f"--share_model 1 starts a model server, and --model_server {client.model_server} names one; leave one of "
            "them out"
        )
    if Path(client.model_name).exists():  # for the clients too, who name it to the server
        client = changed(client, model_name=str(Path(client.model_name).absolute()))
    gpus = ",".join(f"cuda:{number}" for number in re.findall(r"\d+", job.gpu))  # NVFlare: 0,1 or [0],[1]
    config = build(ServiceConfig, {**as_dict(client), **({"device": gpus} if gpus else {})})
    with running_model_server(config, output_of(job) / "model_server.log") as url:
        own = default(type(client), "cache_mb")
        shared = changed(client, model_server=url, device="auto", batch_size=0, cache_mb=own)  # the server's now
        return _run(method, job, shared, server, per_client, quiet)


def _run(
    method: Method,
    job: JobConfig,
    client: ClientConfig,
    server: ServerConfig,
    per_client: Mapping[str, Mapping[str, Any]],
    quiet: bool,
) -> Failures:
    is_here = job.env != "prod" and not EXPORTING
    if job.code != CARRIED and is_here:
        raise UserError(
            f"--code {job.code} is for a real federation, whose server and clients allow flaretune's classes: give "
            "--env prod or --export"
        )
    names = job.client_names
    if names and per_client and set(names) != set(per_client):
        raise UserError(
            f"--clients {job.clients} and {job.per_client}, which has {', '.join(per_client)}, name other clients"
        )
    names = names or list(per_client)
    if names and "n_clients" in job.model_fields_set and job.n_clients != len(names) and job.env != "prod":
        raise UserError(
            f"--n_clients {job.n_clients}, and {'--clients' if job.clients else job.per_client} names {len(names)}: "
            f"{', '.join(names)}; leave one out"
        )
    n_clients = len(names) or job.n_clients
    if job.env == "poc" and server.min_clients == 1:
        server = changed(server, min_clients=n_clients)  # clients come up one by one: the job starts when all are there
    if server.checkpoint and is_here:  # on this machine, whatever folder its server runs in
        server = changed(server, checkpoint=str(Path(server.checkpoint).expanduser().absolute()))
        if not client.state_dir:  # the simulator empties its clients' workspaces
            client = changed(client, state_dir=f"{server.checkpoint}/clients")
    recipe = FlaretuneRecipe(
        client, server, method=method.name, name=job.name, per_client=dict(per_client) or None, code=job.code
    )
    tracker, uri = job.tracker
    if tracker != "none":
        if is_here:  # its server runs here
            check_tracker(tracker)
        recipe.track(tracker, uri)
    output = output_of(job)
    if job.env != "prod":
        logging.getLogger("nvflare").setLevel(logging.WARNING)
    recipe.check()
    if not EXPORTING:
        _make_folder(output)
    env = _environment(job, names, n_clients, output, quiet)
    if not EXPORTING:  # once nothing is wrong with the options
        forget_results(output)
    try:
        with ending_what_it_starts():
            result = recipe.execute(env)  # exits the process here if --export was given
            folder = _logs(job, env)
            if job.env != "sim":  # the simulator has ended, and ended well, when execute returns
                downloaded = result.get_result(timeout=0, clean_up=False)
                status = result.get_status()  # None where it is not known
                if downloaded is None or not (status or SUCCESS).startswith(SUCCESS):
                    raise Ended(f"the job ended as {status}", failures_in(_logs(job, env), downloaded))
                folder = Path(downloaded)
    except RuntimeError as error:
        reason = error.reason if isinstance(error, SimulationFailed) else str(error)
        raise Ended(reason, failures_in(_logs(job, env))) from error
    except Stopped as stop:
        raise Stopped(stop.number, _what_is_left(job, server, _logs(job, env), output)) from stop
    if collect_results(folder, output) is None:
        raise Ended("the job left no results", failures_in(_logs(job, env), folder))
    return failures_in(_logs(job, env), folder)


def _environment(job: JobConfig, names: list[str], n_clients: int, output: Path, quiet: bool) -> ExecEnv:
    if job.env == "sim":
        return SimEnv(
            clients=names or None,
            num_clients=n_clients,
            num_threads=job.threads or None,
            gpu_config=job.gpu or None,
            log_config=str(_silent_logs(output)) if quiet else LOG_CONFIG,
            workspace_root=str((output / "workspace").absolute()),
        )
    if job.env == "poc":
        env = PatientPocEnv(clients=names or None, num_clients=n_clients)
        if quote(str(env.poc_workspace)) != str(env.poc_workspace):  # its start scripts part it at blanks
            raise UserError(
                f"the proof of concept's folder, {str(env.poc_workspace)!r}, must have a path without blanks and "
                "quotes; set NVFLARE_POC_WORKSPACE to one"
            )
        return env
    return ProdEnv(startup_kit_location=job.startup_kit, username=administrator_of(job.startup_kit))


def _logs(job: JobConfig, env: ExecEnv) -> Path | None:
    """Where server and clients of a job that has begun have their folders; None for those of other machines."""
    if job.env == "sim":
        return Path(env.workspace_root) / job.name
    return next(Path(env.poc_workspace).glob("*/prod_*"), None) if job.env == "poc" else None


def _what_is_left(job: JobConfig, server: ServerConfig, logs: Path | None, output: Path) -> str:
    """What a job that was told to stop leaves, as the end of a sentence."""
    if job.env == "prod":
        return "; the job itself goes on at the server"
    if logs is None or collect_results(logs, output) is None:
        return " before the first round had a result"
    last = read_summary(output)["rounds"][-1]["round"]
    goes_on = "the same command resumes it" if server.checkpoint else "with --checkpoint FOLDER it could be resumed"
    return f" after round {last}, whose results are in {output}; {goes_on}"


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output} cannot be made ({error.strerror}); give another folder") from error


def _silent_logs(output: Path) -> Path:
    """The simulator's logging without progress lines, as a file in the folder of the results."""
    config = json.loads(Path(LOG_CONFIG).read_text(encoding="utf-8"))
    config["handlers"]["console"]["level"] = "WARNING"
    file = output.absolute() / Path(LOG_CONFIG).name
    write_json(config, file)
    return file
