"""The flags of a client's script, and what a client says for itself in a file of its own."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from flaretune.cache import in_cache
from flaretune.config.client import PATHS, ClientConfig
from flaretune.config.files import read_options
from flaretune.config.flags import add_flags, read_flags
from flaretune.config.groups import GROUPS
from flaretune.config.options import OptionError, build, check_values
from flaretune.errors import UserError, shown
from flaretune.files import cut_at_number_sign

ClientKind = TypeVar("ClientKind", bound=ClientConfig)


def read_client_config(
    config: type[ClientKind],
    argv: Sequence[str],
    client_file: Path | None = None,
    methods: Sequence[type[ClientConfig]] = (),
) -> tuple[ClientKind, list[str]]:
    """Read the flags of a client's script, and what the client says for itself.

    Args:
        argv: the flags, which the job's author has written: a file of them (``--config``), options, which go
            before it, or both.
        client_file: a TOML file of the client's own options, which go before the job's; None or a file that is not
            there for none.
        methods: those of all methods, which may stand in the client's file.

    Returns:
        The config, and sentences on where options come from, on old names and on what has no meaning any more.

    Raises:
        UserError: a value is out of its range, or the client's file holds what is not a client's to say.
    """
    parser = argparse.ArgumentParser(
        prog=config.script(),
        usage="%(prog)s [--option value ...]",
        allow_abbrev=False,
        description=f"The script of a {config.method} client. NVFlare starts it: put these flags into a job's "
        "app_config.",
    )
    _check_not_cut(argv)
    parser.add_argument("--config", metavar="FILE", help="options as a JSON object; flags go before them")
    add_flags(parser, config, groups=GROUPS, short=True)
    given, sentences = read_flags(parser, argv, config)
    written = given.pop("config")
    if written is not None:
        given = laid_over(_from_file(config, written), given)
    if client_file is not None and client_file.is_file():
        own, more = _own_options(config, client_file, methods or (config,))
        if given.get("dp_public_test"):
            refuse_own_data({n: v for n, v in own.items() if v != given.get(n)}, f"{client_file}: ")
        given, left = _with_own(given, own)
        sentences += [*more, *left, f"of this client's own {client_file}: {', '.join(own)}"]
    given |= {name: in_cache(given[name]) for name in PATHS if name in given}
    built = build(config, given)
    check_complete(built)
    return built, sentences


def check_complete(config: ClientConfig) -> None:
    """Check that a client's options, its own among them, leave nothing open.

    Raises:
        OptionError: something lacks.
    """
    if lacking := list(config.lacks()):
        raise OptionError(lacking)


def _check_not_cut(argv: Sequence[str]) -> None:
    """Notice flags that end in a path which NVFlare cut at a #.

    Raises:
        UserError: there is a path that goes on where the last flag ends.
    """
    found = cut_at_number_sign(Path(argv[-1]).expanduser()) if argv else None
    if found:
        raise UserError(
            f"{' '.join(argv[-2:])}: cut off, it seems, as there is {found}: NVFlare drops what follows a #, unless "
            "the job is created with double quotes inside single ones, as in app_config='\"--option a#b\"'; if it is "
            "whole, write another option behind it"
        )


def refuse_own_data(own: Mapping[str, Any], place: str = "") -> None:
    """Check that none of a client's own options names data, where the job takes test data for public: the job's.

    Raises:
        UserError: one does.
    """
    for name in ("data_path", "dataset", "task_name", "task_file"):
        if own.get(name):
            raise UserError(
                f"{place}--dp_public_test 1 tells correct predictions on test data without noise, and {name} = "
                f"{own[name]!r} names data of this client alone, which is not public; leave one of them out"
            )


def _from_file(config: type[ClientConfig], file: str) -> dict[str, Any]:
    try:
        values = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--config {file} cannot be read ({error.strerror}); give a file of options") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"--config {file} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"--config {file}: must hold a JSON object of options, not {shown(values)}")
    check_values(config, values)
    return values


def laid_over(given: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Options, and others that go before them, without those of the first that the others stand for."""
    pairs = (("data_path", "dataset"), ("dataset", "data_path"), ("task_name", "task_file"))
    pairs += (("clients", "n_clients"), ("per_client", "n_clients"))
    replaced = [instead for name, instead in pairs if own.get(name)]
    return {**{name: value for name, value in given.items() if name not in replaced}, **own}


def _with_own(given: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A client's own options over the job's, and what was left out of either."""
    given, own, sentences = dict(given), dict(own), []
    server = own.get("model_server", given.get("model_server", "local"))
    # of a model in this process: the server's
    for name in ("device", "batch_size", "cache_mb") if server != "local" else ():
        left = [options.pop(name) for options in ((given, own) if "model_server" in own else (own,)) if name in options]
        if left:
            sentences.append(f"--{name} is left to the model server at {server}")
    return laid_over(given, own), sentences


def _own_options(
    config: type[ClientConfig], file: Path, methods: Sequence[type[ClientConfig]]
) -> tuple[dict[str, Any], list[str]]:
    """Options of this method in a client's file, which is one for all; paths are taken from the folder it lies in."""
    own, sentences = read_options(file, *methods)
    allowed = dict.fromkeys(name for method in (config, *methods) for name in method.client_options)
    for name, value in own.items():
        if name not in allowed:
            raise UserError(
                f"{file}: {name} must be the same at all clients, so that the job says it; a client may say "
                f"{', '.join(allowed)}"
            )
        if name in (*PATHS, "task_file", "state_dir") and value:
            path = os.path.join(file.parent, os.path.expanduser(value))  # unlike pathlib's, of any text
            is_place = name == "state_dir" or os.path.exists(path)  # the first is made when it is needed
            own[name] = os.path.abspath(path) if is_place else value
    return {name: value for name, value in own.items() if name in config.client_options}, sentences
