"""The commands in a guide: its code blocks, with who runs each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flaretune.errors import UserError

PARTIES = ADMINISTRATOR, SERVER, SITES = "administrator", "server", "sites"
WAYS = ("carried", "installed")  # how server and sites get the code: options of the jobs' --code
APART = ("example", "poc")  # blocks that are no step: for other hosts, or of another federation
_HEADING = re.compile(r"## (.*)")
_BEGIN = re.compile(r"```sh ?(.*)")
_END = "```"


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        section: the heading above it.
        words: what stands behind ``sh``: parties, perhaps a way, or one of `APART`.
        commands: what it holds, for bash.
        line: where it begins in the file, from 1.
    """

    section: str
    words: tuple[str, ...]
    commands: str
    line: int

    def runs(self, way: str) -> bool:
        """Whether it is a step of this way."""
        return self.words[0] not in APART and (way in self.words or not set(WAYS) & set(self.words))

    @property
    def parties(self) -> list[str]:
        """Who runs it, in this order."""
        return [word for word in self.words if word in PARTIES]


def read_blocks(guide: Path) -> list[Block]:
    """All blocks of a guide, in its order.

    Raises:
        UserError: a block does not say who runs it, or is not closed.
    """
    blocks: list[Block] = []
    section, words, commands, begin = "", None, [], 0
    for number, line in enumerate(guide.read_text(encoding="utf-8").splitlines(), 1):
        if words is not None:
            if line == _END:
                blocks.append(Block(section, words, "\n".join(commands), begin))
                words = None
            else:
                commands.append(line)
        elif heading := _HEADING.fullmatch(line):
            section = heading[1]
        elif start := _BEGIN.fullmatch(line):
            words, commands, begin = tuple(start[1].split()), [], number
            _check(words, f"{guide}:{number}")
    if words is not None:
        raise UserError(f"{guide}:{begin}: the block has no end; close it with {_END}")
    return blocks


def _check(words: Sequence[str], place: str) -> None:
    known = (*PARTIES, *WAYS, *APART)
    wrong = [word for word in words if word not in known]
    if wrong or not words or words[0] in WAYS:
        found = wrong[0] if wrong else "nothing"
        raise UserError(f"{place}: {found!r} does not say who runs the block; write ```sh and {', '.join(known)}")
