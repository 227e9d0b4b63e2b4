"""The options of a verbalizer job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from flaretune.config.client import ClientConfig
from flaretune.config.groups import MODEL, SERVER
from flaretune.config.options import option
from flaretune.config.server import ServerConfig

ROUNDS = 3  # which words, with which weights, how much shrinkage
SUMS_ROUND = 2  # in which the weights come from sums


class VerbalizerConfig(ClientConfig):
    """What a client of a verbalizer job is told."""

    method: ClassVar[str] = "Verbalizer"
    needs_label_words: ClassVar[bool] = False

    n_words: int = option(
        64,
        "words whose log-probabilities the classes are told by, for each of the task's templates",
        group=MODEL,
        main=True,
        at_least=1,
    )
    n_candidates: int = option(
        2000,
        "words that these are chosen from: the most probable ones, and the task's label words",
        group=MODEL,
        at_least=2,
    )

    def clashes(self) -> Iterator[str]:
        yield from super().clashes()
        if self.n_words > self.n_candidates:
            yield (
                f"--n_words {self.n_words} --n_candidates {self.n_candidates}: words are chosen from the candidates; "
                "give at least as many of these"
            )
        if self.calibrate != "none":
            yield (
                f"--calibrate {self.calibrate}: a learned verbalizer has its own weights and bias, so that there is no "
                "preference to divide out; leave it out"
            )


class VerbalizerServerConfig(ServerConfig):
    """What the server of a verbalizer job is told."""

    num_rounds: Literal[3] = option(
        ROUNDS, "always 3: which words, with which weights, how much shrinkage", group=SERVER
    )
