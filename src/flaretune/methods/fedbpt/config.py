"""The options of a FedBPT job."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar

from flaretune.config.options import option
from flaretune.config.shared import MODEL, PROMPT, SEARCH, SERVER, TASK, ServerConfig, SiteConfig
from flaretune.errors import UserError


@dataclass(frozen=True)
class FedBPTConfig(SiteConfig):
    """What a site of a FedBPT job is told."""

    method: ClassVar[str] = "FedBPT"
    takes_published_flags: ClassVar[bool] = True
    local_options: ClassVar[tuple[str, ...]] = (
        *SiteConfig.local_options,
        "cache_mb",
        "llama_causal",
        "lm",
        "lm_timeout",
        "lm_token",
    )

    num_users: int = option(
        0,
        "accepted for the published command line; the data is shared out over the clients that the job has",
        group=TASK,
        at_least=0,
    )
    lm: str = option(
        "local",
        "local: this site loads the model itself; or the address of a service that has it loaded, such as "
        "http://127.0.0.1:8765 (python -m flaretune serve)",
        group=MODEL,
    )
    lm_timeout: int = option(600, "seconds that an answer of the service may take", group=MODEL, at_least=1)
    lm_token: str = option(
        "",
        "for a site's own file: the service's token as a secret reference of NVFlare; default: from the environment, "
        "${secret:FLARETUNE_LM_TOKEN}",
        group=MODEL,
    )
    cache_mb: int = option(
        1024, "MiB for the computed part in front of a suffix prompt (causal models); 0: none", group=MODEL, at_least=0
    )
    zero_lm_bias: int = option(
        1, "masked models: set the bias of the language-model head to zero, as BBT does", group=MODEL, choices=(0, 1)
    )
    llama_causal: int = option(
        1, "kept from the published script: LLaMA always answers as a causal model", group=MODEL, choices=(0, 1)
    )

    n_prompt_tokens: int = option(50, "length of the prompt in tokens (n)", group=PROMPT, main=True, at_least=1)
    cat_or_add: str = option(
        "add",
        "masked models: add the prompt to n placeholder tokens, or put it in front of the text (cat)",
        group=PROMPT,
        choices=("add", "cat"),
    )
    prompt_position: str = option(
        "suffix",
        "causal models: prompt in front of the text, or behind it (the text is then computed only once)",
        group=PROMPT,
        choices=("prefix", "suffix"),
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
    local_iter: int = option(8, "generations that a site searches in a round", group=SEARCH, main=True, at_least=1)
    local_popsize: int = option(
        5, "candidates in a generation, 2 or more; 0: 4 + 3 ln(intrinsic_dim)", group=SEARCH, main=True, at_least=0
    )
    local_seeds: str = option(
        "fixed",
        "random directions of the sites: always the same (as published), new each round and the same at all sites, "
        "or new each round and site",
        group=SEARCH,
        choices=("fixed", "round", "site"),
    )
    loss_type: str = option(
        "ce",
        "what is made small: cross entropy, hinge (margin 2), or minus the task's metric",
        group=SEARCH,
        choices=("ce", "hinge", "perf"),
    )
    perturb: int = option(
        0, "1: divide the loss by that on perturbed texts, against label skew", group=SEARCH, choices=(0, 1)
    )
    perturb_rate: float = option(
        0.5, "with --perturb 1, the share of tokens that are replaced", group=SEARCH, above=0, at_most=1
    )
    norm_prompt: int = option(0, "1: limit the length of the searched vector", group=SEARCH, choices=(0, 1))
    prompt_norm_threshold: float = option(
        15.0, "with --norm_prompt 1, that limit; it grows by 1 a round, the first included", group=SEARCH, above=0
    )
    prompt_norm_threshold_upper: float = option(
        20.0, "the limit stops growing when the global vector is this long", group=SEARCH, above=0
    )

    def __post_init__(self):
        super().__post_init__()
        if self.local_popsize == 1:
            raise UserError(
                "--local_popsize 1: CMA-ES needs at least 2 candidates in a generation (or 0 for its default)"
            )
        if self.lm != "local" and not re.fullmatch(r"https?://[^\s/]+/?", self.lm):
            raise UserError(f"--lm {self.lm}: must be local, or the address of a service such as http://127.0.0.1:8765")
        if self.lm_token and not re.fullmatch(r"\$\{secret:(file:[^{}\s]+|[A-Za-z_]\w*)\}", self.lm_token, re.ASCII):
            raise UserError(  # without the value, which may be the token
                "--lm_token: must be a secret reference such as ${secret:file:/run/secrets/lm} or ${secret:MY_TOKEN}, "
                "in the site's local/flaretune.toml, and never the token itself, which whoever reads the job would see"
            )
        if self.lm != "local" and (self.device != "auto" or self.batch_size):
            raise UserError(
                "--device and --batch_size are the service's where --lm names one: give them to "
                "`python -m flaretune serve`"
            )
        if self.loss_type == "perf" and self.perturb:
            raise UserError(
                "--loss_type perf --perturb 1: the ratio of two accuracies would reward the wrong prompt; "
                "use --loss_type ce or hinge with --perturb 1"
            )

    @property
    def popsize(self) -> int:
        """λ with the default filled in."""
        return self.local_popsize or 4 + int(3 * math.log(self.intrinsic_dim))


@dataclass(frozen=True)
class FedBPTServerConfig(ServerConfig):
    """What the server of a FedBPT job is told."""

    covariance: str = option(
        "diagonal",
        "part of the covariance that is sent to the sites: all (d²/2 numbers, as published), its diagonal, or none",
        group=SERVER,
        main=True,
        choices=("full", "diagonal", "identity"),
    )
    sigma_floor: float = option(
        0.0,
        "the sites' step size never falls below this; 0: no floor",
        group=SERVER,
        at_least=0,
    )
