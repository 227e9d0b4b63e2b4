"""The options of a verbalizer job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from flaretune.config.groups import MODEL, SERVER
from flaretune.config.options import option
from flaretune.config.served_model import LOCAL, ServedModelConfig
from flaretune.config.server import ServerConfig
from flaretune.methods.verbalizer.settings import DEFAULT_N_WORDS, N_CANDIDATES

N_WORDS = option(
    DEFAULT_N_WORDS,
    "words whose log-probabilities a learned verbalizer tells the classes by, for each of the task's templates",
    group=MODEL,
    at_least=1,
    at_most=N_CANDIDATES,
)


class VerbalizerConfig(ServedModelConfig):
    """What a client of a verbalizer job is told."""

    method: ClassVar[str] = "Verbalizer"
    needs_label_words: ClassVar[bool] = False

    n_words: int = N_WORDS

    def clashes(self) -> Iterator[str]:
        yield from super().clashes()
        if self.calibrate != "none":
            yield (
                f"--calibrate {self.calibrate}: a learned verbalizer has its own weights and bias, so that there is no "
                "preference to divide out; leave it out"
            )
        if self.model_server != LOCAL and not self.uses_vllm:
            yield (
                f"--model_server {self.model_server}: python -m flaretune serve answers FedBPT's clients alone; give a "
                "verbalizer's local, or a vLLM server (vllm+http://…)"
            )


class VerbalizerServerConfig(ServerConfig):
    """What the server of a verbalizer job is told."""

    num_rounds: Literal[1] = option(1, "always 1: each text is asked about once", group=SERVER)
