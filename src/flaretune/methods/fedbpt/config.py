"""The options of a FedBPT job."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

from flaretune.config.groups import MODEL, PROMPT, SEARCH, SERVER
from flaretune.config.model import CACHE_MB
from flaretune.config.options import default, option
from flaretune.config.served_model import LOCAL, ServedModelConfig
from flaretune.config.server import ServerConfig
from flaretune.methods.verbalizer.config import N_WORDS


def norm_limits(max_norm: str) -> tuple[float, float] | None:
    """The limit of a searched vector's length in the first round, and where it stops growing; None for no limit.

    Args:
        max_norm: the option, two numbers such as ``15:20``, or "".

    Raises:
        ValueError: it is something else.
    """
    if not max_norm:
        return None
    first, last = map(float, max_norm.split(":"))
    if not (0 < first < math.inf and 0 < last < math.inf):
        raise ValueError(max_norm)
    return first, last


class FedBPTConfig(ServedModelConfig):
    """What a client of a FedBPT job is told."""

    method: ClassVar[str] = "FedBPT"
    client_options: ClassVar[tuple[str, ...]] = (*ServedModelConfig.client_options, "cache_mb")

    cache_mb: int = CACHE_MB

    verbalizer: Literal["words", "learned"] = option(
        "words",
        "classes by the task's label words, as published, or by weights of many words, made anew for each prompt",
        group=MODEL,
        main=True,
    )
    n_words: int = N_WORDS

    n_prompt_tokens: int = option(50, "length of the prompt in tokens (n)", group=PROMPT, main=True, at_least=1)
    cat_or_add: Literal["add", "cat"] = option(
        "add",
        "masked models: add the prompt to n placeholder tokens, or put it in front of the text (cat)",
        group=PROMPT,
    )
    prompt_position: Literal["prefix", "suffix"] = option(
        "suffix",
        "causal models: prompt in front of the text, or behind it (the text is then computed only once)",
        group=PROMPT,
    )
    init_prompt: str = option(
        "auto",
        "where the search starts: zeros, tokens (random ones), or a text of yours; auto: tokens for cat, else zeros",
        group=PROMPT,
    )
    intrinsic_dim: int = option(500, "how many numbers are searched (d)", group=PROMPT, main=True, at_least=1)
    alpha: float = option(1.0, "scale of the random projection that makes a prompt of them", group=PROMPT, above=0)

    sigma: float = option(1.0, "initial step size", group=SEARCH, above=0)
    bound: float = option(0.0, "keep every searched number within ±bound; 0: no bound", group=SEARCH, at_least=0)
    local_iter: int = option(8, "generations that a client searches in a round", group=SEARCH, main=True, at_least=1)
    local_popsize: int = option(
        5, "candidates in a generation, 2 or more; 0: 4 + 3 ln(intrinsic_dim)", group=SEARCH, main=True, at_least=0
    )
    loss_type: Literal["ce", "hinge", "perf"] = option(
        "ce", "what is made small: cross entropy, hinge (margin 2), or minus the task's metric", group=SEARCH
    )
    perturb: Literal[0, 1] = option(
        0, "1: divide the loss by that on perturbed texts, against label skew", group=SEARCH
    )
    perturb_rate: float = option(
        0.5, "with --perturb 1, the share of tokens that are replaced", group=SEARCH, above=0, at_most=1
    )
    max_norm: str = option(
        "",
        "the longest that a searched vector may be, FIRST:LAST such as 15:20: the limit begins at the first and grows "
        "by 1 a round, the first included, until the global vector is as long as the last; default: no limit",
        group=SEARCH,
    )

    @property
    def needs_label_words(self) -> bool:
        return self.verbalizer == "words"

    def clashes(self) -> Iterator[str]:
        yield from super().clashes()
        if self.local_popsize == 1:
            yield "--local_popsize 1: CMA-ES needs at least 2 candidates in a generation (or 0 for its default)"
        if self.model_server != LOCAL:
            yield from self._clashes_with_server()
        if self.verbalizer == "learned":
            yield from self._clashes_of_learned()
        if self.loss_type == "perf" and self.perturb:
            yield (
                "--loss_type perf --perturb 1: the ratio of two accuracies would reward the wrong prompt; "
                "use --loss_type ce or hinge with --perturb 1"
            )
        try:
            norm_limits(self.max_norm)
        except ValueError:
            yield f"--max_norm {self.max_norm}: must be two numbers above 0, FIRST:LAST such as 15:20, or left out"

    def _clashes_with_server(self) -> Iterator[str]:
        if self.uses_vllm and self.cat_or_add != default(FedBPTConfig, "cat_or_add"):
            yield (
                f"--cat_or_add {self.cat_or_add} is of masked models, and vLLM gives log-probabilities of causal ones: "
                "leave it out, or use --model_server local"
            )
        if self.cache_mb != default(FedBPTConfig, "cache_mb"):
            yield f"--cache_mb {self.cache_mb} is the model server's where --model_server names one: leave it out"

    def _clashes_of_learned(self) -> Iterator[str]:
        for flag, given, why in (
            ("--calibrate", self.calibrate != "none", "it has its own weights and bias; leave it out"),
            ("--perturb", bool(self.perturb), "what it is asked once is not asked of perturbed texts; leave it out"),
            ("--dp_noise", bool(self.dp_noise), "sums would be sent every round; take the method verbalizer, or words"),
            (
                "--model_server",
                self.model_server != LOCAL and not self.uses_vllm,
                "it needs the model in the client's own process, or a vLLM server (vllm+http://…)",
            ),
        ):
            if given:
                yield f"{flag} does not go with --verbalizer learned: {why}"

    @property
    def popsize(self) -> int:
        """λ with the default filled in."""
        return self.local_popsize or 4 + int(3 * math.log(self.intrinsic_dim))


class FedBPTServerConfig(ServerConfig):
    """What the server of a FedBPT job is told."""

    covariance: Literal["full", "diagonal", "identity"] = option(
        "diagonal",
        "part of the covariance that is sent to the clients: all (d²/2 numbers, as published), its diagonal, or none",
        group=SERVER,
    )
