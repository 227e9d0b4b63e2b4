"""Manners that all our command lines share: errors in one sentence, short help, progress on terminals only."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import TypeVar

from flaretune.errors import UserError

Item = TypeVar("Item")
STOPPED = 130  # exit status after Ctrl-C, as shells have it


def add_manners(parser: argparse.ArgumentParser) -> None:
    """Add the flags --quiet and --debug."""
    parser.add_argument("--quiet", action="store_true", help="only results, warnings and errors: no progress")
    parser.add_argument("--debug", action="store_true", help="with an error, show where in the code it arose")


def run(command: Callable[[], int | None], debug: bool = False) -> int:
    """Run a command; returns the exit status: 1 after what the user can correct, which is told in one sentence."""
    try:
        status = command() or 0
        sys.stdout.flush()
        return status
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return STOPPED
    except BrokenPipeError:  # who reads the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def progress(quiet: bool = False) -> Callable[[Iterable[Item], str], Iterable[Item]]:
    """A function that draws a bar on stderr while a sequence is gone through, given what it is counted in.

    It draws nothing if `quiet` or where stderr is not a terminal.
    """
    from tqdm import tqdm

    return lambda items, unit: tqdm(items, unit=unit, leave=False, disable=True if quiet else None)


def printable(text: str) -> str:
    """A text on one line, without characters that a terminal would take for commands."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
