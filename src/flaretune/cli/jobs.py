"""`python jobs/fedbpt_job.py` and its like: a job from flags, run in an environment or exported."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flaretune.cache import in_cache
from flaretune.cli import console
from flaretune.cli.console import add_manners, printable
from flaretune.config.client import PATHS
from flaretune.config.client_flags import laid_over
from flaretune.config.files import read_client_tables, read_options
from flaretune.config.flags import add_flags, read_flags
from flaretune.config.groups import GROUPS
from flaretune.config.job import JobConfig
from flaretune.config.options import Options, build_all
from flaretune.engine.results import tell_results
from flaretune.methods.base import Method
from flaretune.methods.registry import find_method

# the first of these takes --export and --export-dir from the command line
from flaretune.flare.run_job import EXPORTING, Ended, output_of, run_job  # isort: skip
from flaretune.errors import UserError
from flaretune.flare.stopping import Stopped, stoppable

PLACES = ("output", "per_client", "startup_kit")  # of `JobConfig`, whose ~ a shell leaves in --output=~/runs
PRESETS = Path(__file__).parents[1] / "methods"


def main(method_name: str, argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 0 for a job that ended well.

    A job that is told to stop leaves no process behind, and the results of the rounds that it has finished.
    """
    argv = sys.argv[1:] if argv is None else argv
    method = find_method(method_name)
    return console.run(lambda: _run(method, argv), debug="--debug" in argv)


def _run(method: Method, argv: Sequence[str]) -> int:
    given = {"name": method.name, **parse(method, argv)}
    job, client, server = build_all(given, *configs_of(method))
    per_client, sentences = (
        read_client_tables(Path(job.per_client), method.client_config) if job.per_client else ({}, [])
    )
    warn(sentences)
    quiet = "--quiet" in argv
    try:
        with stoppable():
            failures = run_job(method, job, client, server, per_client, quiet)
    except Stopped as stop:
        _say("error", str(stop))
        return stop.status
    except Ended as end:
        for sentence, who in end.failures.items():
            _say("error", f"{', '.join(who)}: {sentence}")
        _say("error", str(end))
        return 1
    for sentence, who in failures.items():
        _say("warning", f"{', '.join(who)}: {sentence}")
    if not quiet:
        print(tell_results(output_of(job)))
    return 0


def _say(what: str, sentence: str) -> None:
    print(f"{what}: {printable(sentence)}", file=sys.stderr)


def warn(sentences: Sequence[str]) -> None:
    """Tell of old names, and of options that have no effect."""
    for sentence in sentences:
        _say("warning", sentence)


def configs_of(method: Method) -> tuple[type[Options], ...]:
    """What the command line of a method's jobs takes."""
    return JobConfig, method.client_config, method.server_config


def parse(method: Method, argv: Sequence[str]) -> dict[str, Any]:
    """Options by name: the preset's, overridden by the flags that were given. Old names are warned of."""
    parser = argparse.ArgumentParser(
        prog=method.job_script,
        usage="%(prog)s [--preset NAME] [--option value ...]\n       [--export --export-dir FOLDER]",
        allow_abbrev=False,
        description=f"Run a job of {method.title}, or export it with --export --export-dir FOLDER.",
    )
    known = ", ".join(presets(method))
    parser.add_argument("--preset", metavar="NAME", help=f"options from a preset ({known}) or a TOML file")
    add_manners(parser)
    add_flags(parser, *configs_of(method), groups=GROUPS, short=True)
    flags, sentences = console.leaving_well(lambda: read_flags(parser, argv, *configs_of(method)))
    preset = flags.pop("preset", None)
    for manner in ("quiet", "debug"):  # of this command line, not of the job
        del flags[manner]
    options = read_preset(method, preset, flags.get("env")) if preset else {}
    warn(sentences)
    options = laid_over(options, flags)
    return {**options, **{name: os.path.expanduser(options[name]) for name in PLACES if name in options}}


def presets(method: Method) -> list[str]:
    """Names of the presets that are shipped for a method."""
    return sorted(path.stem for path in _preset_folder(method).glob("*.toml"))


def read_preset(method: Method, name: str, env: str | None = None) -> dict[str, Any]:
    """Options of a shipped preset or of a user's TOML file; ``{cache}`` in texts is the cache folder.

    Old names are warned of. In a job for other machines ``{cache}`` stays in paths of the clients, each of which has a
    cache folder of its own.

    Args:
        name: of the preset, or the file.
        env: where the job runs; None for what the preset says.

    Raises:
        UserError: there is no such preset, or it holds an option that does not exist.
    """
    path = Path(name).expanduser() if name.endswith(".toml") else _preset_folder(method) / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(presets(method))
        raise UserError(f"--preset {name}: there is no such preset; there are {known}, or give a .toml file")
    options, sentences = read_options(path, *configs_of(method))
    warn(sentences)
    is_here = not EXPORTING and (env or options.get("env")) != "prod"
    texts = [k for k, v in options.items() if isinstance(v, str) and (is_here or k not in PATHS)]
    return {**options, **{k: in_cache(options[k]) for k in texts}}


def _preset_folder(method: Method) -> Path:
    return PRESETS / method.name / "presets"
