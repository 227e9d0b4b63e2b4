"""`python jobs/fedbpt_job.py` and `jobs/lpfl_job.py`: a job from flags, run in an environment or exported."""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flaretune.cli import console as command_line
from flaretune.cache import in_cache
from flaretune.cli.console import add_manners, printable
from flaretune.methods.fedbpt.config import FedBPTConfig, FedBPTServerConfig
from flaretune.config.job import CARRIED, JobConfig
from flaretune.methods.lpfl.config import LPFLConfig, LPFLServerConfig
from flaretune.config.options import add_flags, as_dict, build
from flaretune.config.model_server import ServiceConfig
from flaretune.config.shared import GROUPS, PATHS, ServerConfig, SiteConfig
from flaretune.errors import UserError
from flaretune.engine.results import collect_results, error_sentences, forget_results, read_summary, tell_results
from flaretune.engine.records import write_json
from flaretune.config.retired_options import add_retired_flags, answer_retired
from flaretune.model_server.launch import running_model_server
from flaretune.config.toml_file import read_toml

EXPORTING = "--export" in sys.argv  # looked up before NVFlare takes it
with warnings.catch_warnings():
    # NVFlare takes --export and --export-dir from the command line when this is imported, and warns of it.
    warnings.filterwarnings("ignore", message="NVFlare reserves '--export'")
    from nvflare.recipe import ProdEnv, SimEnv
    from nvflare.recipe.spec import ExecEnv

from flaretune.flare.fedbpt_recipe import FedBPTRecipe  # noqa: E402
from flaretune.flare.lpfl_recipe import LPFLRecipe  # noqa: E402
from flaretune.flare.poc_env import PatientPocEnv  # noqa: E402
from flaretune.flare.recipe import LOG_CONFIG, FlaretuneRecipe  # noqa: E402
from flaretune.flare.startup_kit import administrator_of  # noqa: E402
from flaretune.flare.stopping import Stopped, ending_what_it_starts, stoppable  # noqa: E402
from flaretune.flare.tracking import check_tracker  # noqa: E402

METHODS = Path(__file__).parents[1] / "methods"


@dataclass(frozen=True)
class Method:
    """A method, as this command line sees it."""

    site: type[SiteConfig]
    server: type[ServerConfig]
    recipe: type[FlaretuneRecipe]

    @property
    def script(self) -> str:
        """File name of its jobs' script."""
        return self.site.script().replace("_train", "_job")


FEDBPT = Method(FedBPTConfig, FedBPTServerConfig, FedBPTRecipe)
LPFL = Method(LPFLConfig, LPFLServerConfig, LPFLRecipe)


def main(method: Method, argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 0 for a job that ended well.

    A job that is told to stop leaves no process behind, and the results of the rounds that it has finished.
    """
    argv = sys.argv[1:] if argv is None else argv

    def command() -> int:
        given = parse(method, argv)
        for sentence in answer_retired(given):
            print(f"warning: {sentence}", file=sys.stderr)
        job = build(JobConfig, {"name": method.script.removesuffix("_job.py"), **given})
        site, server = build(method.site, given), build(method.server, given)
        try:
            with stoppable():
                return run(method, job, site, server, "--quiet" in argv)
        except Stopped as stop:
            print(f"error: {stop}", file=sys.stderr)
            return stop.status

    return command_line.run(command, debug="--debug" in argv)


def parse(method: Method, argv: Sequence[str]) -> dict[str, Any]:
    """Options by name: the preset's, overridden by the flags that were given."""
    parser = argparse.ArgumentParser(
        prog=method.script,
        usage="%(prog)s [--preset NAME] [--option value ...]\n       [--export --export-dir FOLDER]",
        allow_abbrev=False,
        description=f"Run a job of {method.site.method}, or export it with --export --export-dir FOLDER.",
    )
    known = ", ".join(presets(method))
    parser.add_argument("--preset", metavar="NAME", help=f"options from a preset ({known}) or a TOML file")
    add_manners(parser)
    add_flags(parser, JobConfig, method.site, method.server, groups=GROUPS, short=True)
    if method.site.takes_published_flags:
        add_retired_flags(parser)
    flags = vars(command_line.parse(parser, argv))
    preset = flags.pop("preset", None)
    for manner in ("quiet", "debug"):  # of this command line, not of the job
        del flags[manner]
    is_here = not EXPORTING and flags.get("env") != "prod"
    return {**(read_preset(method, preset, is_here) if preset else {}), **flags}


def presets(method: Method) -> list[str]:
    """Names of the presets that are shipped for a method."""
    return sorted(path.stem for path in _preset_folder(method).glob("*.toml"))


def read_preset(method: Method, name: str, is_here: bool = True) -> dict[str, Any]:
    """Options of a shipped preset or of a user's TOML file; ``{cache}`` in texts is the cache folder.

    Args:
        method: whose preset.
        name: of the preset, or the file.
        is_here: whether the job runs on this machine; if not, each site has a cache folder of its own for its paths.

    Raises:
        UserError: there is no such preset, or it holds an option that does not exist.
    """
    path = Path(name) if name.endswith(".toml") else _preset_folder(method) / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(presets(method))
        raise UserError(f"--preset {name}: there is no such preset; there are {known}, or give a .toml file")
    options = read_toml(path, JobConfig, method.site, method.server)
    texts = [k for k, v in options.items() if isinstance(v, str) and (is_here or k not in PATHS)]
    return {**options, **{k: in_cache(options[k]) for k in texts}}


def _preset_folder(method: Method) -> Path:
    return METHODS / method.script.removesuffix("_job.py") / "presets"


def run(method: Method, job: JobConfig, site: SiteConfig, server: ServerConfig, quiet: bool = False) -> int:
    """Run or export the job, with a model server for its clients if they share one; returns the exit status."""
    if not job.share_lm:
        return run_job(method, job, site, server, quiet)
    if not isinstance(site, FedBPTConfig):
        raise UserError(
            "--share_lm 1 is for FedBPT, which only asks the model; the sites of LP-FL each train their own"
        )
    if job.env == "prod" or EXPORTING:
        raise UserError(
            "--share_lm 1 is for jobs that run on this machine; for others run `python -m flaretune serve` on each "
            "machine and give --lm"
        )
    if site.lm != "local":
        raise UserError(f"--share_lm 1 starts a service, and --lm {site.lm} names one; leave one of them out")
    gpus = ",".join(f"cuda:{number}" for number in re.findall(r"\d+", job.gpu))  # NVFlare: 0,1 or [0],[1]
    service = build(ServiceConfig, {**as_dict(site), **({"device": gpus} if gpus else {})})
    with running_model_server(service, _output(job) / "model_server.log") as url:
        return run_job(method, job, replace(site, lm=url, device="auto", batch_size=0), server, quiet)


def _output(job: JobConfig) -> Path:
    return Path(job.output or f"runs/{job.name}")


def run_job(method: Method, job: JobConfig, site: SiteConfig, server: ServerConfig, quiet: bool = False) -> int:
    """Run or export the job, and collect its results, told of unless `quiet`; returns the exit status."""
    if job.code != CARRIED and job.env != "prod" and not EXPORTING:
        raise UserError(
            f"--code {job.code} is for a real federation, whose server and sites allow flaretune's classes: give "
            "--env prod or --export"
        )
    clients = [name.strip() for name in job.clients.split(",") if name.strip()]
    per_site = read_toml(Path(job.sites), tables_of=method.site) if job.sites else None
    if clients and per_site and set(clients) != set(per_site):
        raise UserError(f"--clients {job.clients} and {job.sites}, which has {', '.join(per_site)}, name other sites")
    clients = clients or list(per_site or [])
    n_clients = len(clients) or job.n_clients
    if job.env == "poc" and server.min_clients == 1:
        server = replace(server, min_clients=n_clients)  # clients come up one by one: the job starts when all are there
    if server.checkpoint and job.env != "prod" and not EXPORTING:  # on this machine, whatever folder its server runs in
        server = replace(server, checkpoint=str(Path(server.checkpoint).expanduser().absolute()))
        if not site.state_dir:  # the simulator empties its sites' workspaces
            site = replace(site, state_dir=f"{server.checkpoint}/sites")
    recipe = method.recipe(site, server, name=job.name, per_site=per_site, code=job.code)
    if job.tracking != "none":
        if job.env != "prod" and not EXPORTING:  # its server runs here
            check_tracker(job.tracking)
        recipe.track(job.tracking, job.tracking_uri)
    output = _output(job)
    if job.env != "prod":
        logging.getLogger("nvflare").setLevel(logging.WARNING)
    if not EXPORTING:
        _make_folder(output)
        forget_results(output)
    if job.env == "sim":
        env = SimEnv(
            clients=clients or None,
            num_clients=n_clients,
            num_threads=job.threads or None,
            gpu_config=job.gpu or None,
            log_config=None if job.verbose else str(_silent_logs(output)) if quiet else LOG_CONFIG,
            workspace_root=str((output / "workspace").absolute()),
        )
    elif job.env == "poc":
        env = PatientPocEnv(clients=clients or None, num_clients=n_clients)
    else:
        env = ProdEnv(startup_kit_location=job.startup_kit, username=administrator_of(job.startup_kit))
    try:
        with ending_what_it_starts():
            result = recipe.execute(env)  # exits the process here if --export was given
            folder = _logs(job, env)
            if job.env != "sim":  # the simulator has ended, and ended well, when execute returns
                downloaded = result.get_result(timeout=job.timeout, clean_up=False)
                status = str(result.get_status())
                if downloaded is None or "FAILED" in status.upper() or "ABORT" in status.upper():
                    return _failed(f"the job ended as {status}", _logs(job, env))
                folder = Path(downloaded)
    except RuntimeError as error:
        return _failed(str(error), _logs(job, env))
    except Stopped as stop:
        raise Stopped(stop.number, _what_is_left(job, server, _logs(job, env), output)) from stop
    logs = _logs(job, env)
    if collect_results(folder, output) is None:
        return _failed("the job left no results", logs)
    for sentence, sites in _said(logs).items():
        print(f"warning: {', '.join(sites)}: {printable(sentence)}", file=sys.stderr)
    if not quiet:
        print(tell_results(output))
    return 0


def _logs(job: JobConfig, env: ExecEnv) -> Path | None:
    """Where server and sites of a job that has begun have their logs; None for those of other machines."""
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
    goes_on = "the same command goes on from there" if server.checkpoint else "with --checkpoint FOLDER it could go on"
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


def _failed(reason: str, logs: Path | None) -> int:
    """Say why a job failed, what the sites said first, and return the exit status."""
    for sentence, sites in sorted(_said(logs).items(), key=lambda item: item[1] == ["server"]):
        print(f"error: {', '.join(sites)}: {printable(sentence)}", file=sys.stderr)
    print(f"error: {printable(reason)}", file=sys.stderr)
    return 1


def _said(logs: Path | None) -> dict[str, list[str]]:
    """What sites and server said was wrong, and which of them said it."""
    said: dict[str, list[str]] = {}
    for site, sentence in error_sentences(logs) if logs else ():
        said.setdefault(sentence, []).append(site)
    return said
