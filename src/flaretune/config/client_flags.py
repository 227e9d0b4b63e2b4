"""The flags of a site's script, and what a site says for itself in a file of its own."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from flaretune.cache import in_cache
from flaretune.config.options import add_flags, build
from flaretune.config.retired_options import add_retired_flags, answer_retired
from flaretune.config.shared import GROUPS, PATHS, SiteConfig
from flaretune.config.toml_file import read_toml
from flaretune.errors import UserError
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.lpfl.config import LPFLConfig

SiteKind = TypeVar("SiteKind", bound=SiteConfig)


def parse_site_flags(
    config: type[SiteKind], argv: Sequence[str], site_file: Path | None = None
) -> tuple[SiteKind, list[str]]:
    """Read the flags of a site's script, and what the site says for itself.

    Args:
        config: the method's.
        argv: the flags, which the job's author has written.
        site_file: a TOML file of the site's own options, which go before the job's; None or a file that is not there
            for none.

    Returns:
        The config, and sentences on where options come from or that they have no meaning any more.

    Raises:
        UserError: a value is out of its range, or the site's file holds what is not a site's to say.
    """
    method = config.method
    parser = argparse.ArgumentParser(
        prog=config.script(),
        usage="%(prog)s [--option value ...]",
        allow_abbrev=False,
        description=f"The script of a {method} site. NVFlare starts it: put these flags into a job's app_config.",
    )
    add_flags(parser, config, groups=GROUPS, short=True)
    if config.takes_published_flags:
        add_retired_flags(parser)
    given = vars(parser.parse_args(argv))
    sentences = answer_retired(given)
    if site_file is not None and site_file.is_file():
        own = _site_s_own(config, site_file)
        if "data_path" in own:
            given.pop("dataset", None)  # the job's common data set, which the site's own data stands for
        if "dataset" in own:
            given.pop("data_path", None)
        if "task_name" in own:
            given.pop("task_file", None)  # the job's, likewise
        lm = own.get("lm", given.get("lm", "local"))
        for name in ("device", "batch_size") if lm != "local" else ():  # of a model in this process: the service's
            left = [options.pop(name) for options in ((given, own) if "lm" in own else (own,)) if name in options]
            if left:
                sentences.append(f"--{name} is left to the service at {lm}")
        if given.get("dp_public_test"):
            refuse_own_data({n: v for n, v in own.items() if v != given.get(n)}, f"{site_file}: ")
        given |= own
        sentences.append(f"of this site's own {site_file}: {', '.join(own)}")
    given |= {name: in_cache(given[name]) for name in PATHS if name in given}
    return build(config, given), sentences


def refuse_own_data(own: Mapping[str, Any], place: str = "") -> None:
    """Check that none of a site's own options names data, where the job takes test data for public: the job's.

    Raises:
        UserError: one does.
    """
    for name in ("data_path", "dataset", "task_name", "task_file"):
        if own.get(name):
            raise UserError(
                f"{place}--dp_public_test 1 tells right answers on test data without noise, and {name} = "
                f"{own[name]!r} names data of this site alone, which is not public; leave one of them out"
            )


def _site_s_own(config: type[SiteConfig], file: Path) -> dict[str, Any]:
    """Options of this method in a site's file, which is one for all methods; paths taken from the folder it lies in."""
    own = read_toml(file, config, FedBPTConfig, LPFLConfig)
    allowed = dict.fromkeys((*config.local_options, *FedBPTConfig.local_options, *LPFLConfig.local_options))
    for name, value in own.items():
        if name not in allowed:
            raise UserError(
                f"{file}: {name} must be the same at all sites, so that the job says it; a site may say "
                f"{', '.join(allowed)}"
            )
        if name in (*PATHS, "task_file", "state_dir") and value:
            path = os.path.join(file.parent, os.path.expanduser(value))  # unlike pathlib's, of any text
            is_place = name == "state_dir" or os.path.exists(path)  # the first is made when it is needed
            own[name] = os.path.abspath(path) if is_place else value
    return {name: value for name, value in own.items() if name in config.local_options}
