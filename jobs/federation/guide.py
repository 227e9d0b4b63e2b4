"""The commands in a guide: code blocks, each under a line that says who runs it, **server, clients, if installed:**."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from flaretune.errors import UserError

PARTIES = ADMINISTRATOR, SERVER, CLIENTS = "administrator", "server", "clients"
WAYS = CARRIED, INSTALLED = "carried", "installed"  # how server and clients get the code: the jobs' option --code
CONDITIONS = tuple(f"if {way}" for way in WAYS)
APART = ("other hosts", "anybody")  # blocks that are no step here: for several hosts, or of another federation
_HEADING = re.compile(r"## (.*)")
_WHO = re.compile(r"\*\*(.*):\*\*")
_BEGIN, _END = "```sh", "```"


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        section: the heading above it.
        words: what stands above it: parties and perhaps one of `CONDITIONS`, or one of `APART`.
        commands: what it holds, for bash.
        line: where it begins in the file, from 1.
    """

    section: str
    words: tuple[str, ...]
    commands: str
    line: int

    def runs(self, way: str) -> bool:
        """Whether it is a step of this way."""
        conditions = [word for word in self.words if word in CONDITIONS]
        return self.words[0] not in APART and (not conditions or f"if {way}" in conditions)

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
    section, before, words, commands, begin = "", "", None, [], 0
    for number, line in enumerate(guide.read_text(encoding="utf-8").splitlines(), 1):
        if words is not None:
            if line == _END:
                blocks.append(Block(section, words, "\n".join(commands), begin))
                words = None
            else:
                commands.append(line)
        elif heading := _HEADING.fullmatch(line):
            section = heading[1]
        elif line.startswith("```"):
            if line != _BEGIN:
                raise UserError(f"{guide}:{number}: {line} begins no block of commands; write {_BEGIN}")
            words, commands, begin = _who(before, f"{guide}:{number}"), [], number
        before = line
    if words is not None:
        raise UserError(f"{guide}:{begin}: the block has no end; close it with {_END}")
    return blocks


def _who(line: str, place: str) -> tuple[str, ...]:
    """The words of the line above a block."""
    found = _WHO.fullmatch(line)
    words = tuple(word.strip() for word in found[1].split(",")) if found else ()
    known = (*PARTIES, *CONDITIONS, *APART)
    if not words or words[0] in CONDITIONS or not set(words) <= set(known):
        raise UserError(
            f"{place}: {line!r} above the block does not say who runs it; write a line **{PARTIES[0]}:** of "
            f"{', '.join(known)}"
        )
    return words
