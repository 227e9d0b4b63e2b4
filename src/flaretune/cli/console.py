"""Manners that all our command lines share: errors in one sentence, short help, progress on terminals only."""

from __future__ import annotations

import argparse
import errno
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from flaretune.errors import UserError, lack_of_memory, lack_of_package
from flaretune.host import replace_unprintable, write_nowhere

Item = TypeVar("Item")
STOPPED = 130  # exit status after Ctrl-C, as shells have it
FULL = (errno.ENOSPC, errno.EDQUOT)  # a disk, or a user's share of it


def add_manners(parser: argparse.ArgumentParser) -> None:
    """Add the flags --quiet and --debug."""
    parser.add_argument("--quiet", action="store_true", help="only results, warnings and errors: no progress")
    parser.add_argument("--debug", action="store_true", help="with an error, show where in the code it arose")


def add_command(
    commands: Any, name: str, function: Callable[[argparse.Namespace], int | None] | None, help: str
) -> argparse.ArgumentParser:
    """Add a command with our manners to what `add_subparsers` gave; its function, if it has one, is in `command`."""
    command = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", allow_abbrev=False)
    command.set_defaults(command=function)
    if function is not None:
        add_manners(command)
    return command


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """`parse_args`, which exits after a wrong flag (status 2) or a help text, whether anybody reads that or not."""
    return leaving_well(lambda: parser.parse_args(argv))


def leaving_well(parse: Callable[[], Item]) -> Item:
    """What reads a command line, and may exit after a help text that nobody reads to its end."""
    replace_unprintable()
    try:
        return parse()
    except SystemExit as stop:
        status = stop.code
    raise SystemExit(run(lambda: status))


def run(command: Callable[[], int | None], debug: bool = False) -> int:
    """Run a command; returns the exit status: 1 after what the user can correct, which is told in one sentence."""
    status = 0
    replace_unprintable()
    try:
        status = command() or 0
        if sys.stdout is not None:  # as it is where the shell has closed it
            sys.stdout.flush()
        return status
    except (UserError, FloatingPointError) as error:  # the latter is the model's
        return _told(str(error), debug)
    except KeyboardInterrupt:
        return STOPPED
    except BrokenPipeError:
        write_nowhere()
        return status
    except OSError as error:  # a full disk, a folder that may not be written to
        if error.filename is None and error.errno not in FULL:
            raise
        if error.filename is None:
            write_nowhere()  # or Python would try again when it ends
        return _told(f"{error.filename or 'what is printed'} cannot be read or written ({error.strerror})", debug)
    except Exception as error:
        if sentence := lack_of_memory(error) or lack_of_package(error):
            return _told(sentence, debug)
        raise


def _told(sentence: str, debug: bool) -> int:
    """Tell what is wrong; the exit status."""
    if debug:
        traceback.print_exc()
    print(f"error: {printable(sentence)}", file=sys.stderr)
    return 1


def check_output(file: Path | None) -> None:
    """Whether a file can be written, before minutes are spent on what it is to hold.

    Raises:
        UserError: it is a folder, or in none.
    """
    if file is not None and (file.is_dir() or not file.parent.is_dir()):
        reason = "is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise UserError(f"--output {file}: {reason}; give a file in a folder that there is")


def seconds(text: str) -> float:
    """A flag's value, a number of seconds."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be at least 0, and finite")
    return number


def progress(quiet: bool = False) -> Callable[[Iterable[Item], str], Iterable[Item]]:
    """A function that draws a bar on stderr while a sequence is gone through, given what it is counted in.

    It draws nothing if `quiet` or where stderr is not a terminal.
    """
    from tqdm import tqdm

    return lambda items, unit: tqdm(items, unit=unit, leave=False, disable=True if quiet else None)


def printable(text: str) -> str:
    """A text on one line, without characters that a terminal would take for commands."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
