"""The options of a FedBPT job: one source for flags, defaults, help texts and checks."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any, TypeVar, get_type_hints

from flaretune.errors import UserError

Config = TypeVar("Config")


def option(
    default: Any,
    help: str,
    *,
    group: str,
    choices: Sequence[Any] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A dataclass field that knows its help text and the values it may take."""
    limits = {"choices": choices, "at_least": at_least, "above": above, "at_most": at_most}
    return field(default=default, metadata={"help": help, "group": group, **limits})


@dataclass(frozen=True)
class SiteConfig:
    """What a site's script is told by its flags. All sites of a job share these, but for their own data and device."""

    task_name: str = option("sst2", "a task that is shipped: see `python -m flaretune tasks`", group="task and data")
    task_file: str = option("", "a task of your own, a TOML file, instead of --task_name", group="task and data")
    dataset: str = option(
        "", "the common data set in place of the task's: a hub id or a local folder", group="task and data"
    )
    data_path: str = option(
        "", "this site's own labelled file (CSV, JSONL, Parquet), used whole and not shared out", group="task and data"
    )
    k_shot: int = option(
        16,
        "labelled texts a class for training, and as many for development, over all sites",
        group="task and data",
        at_least=1,
    )
    num_users: int = option(
        0, "shares of the common data set; 0: as many as the job has clients", group="task and data", at_least=0
    )
    iid: int = option(
        1, "1: every site's share has the same label mix; 0: Dirichlet", group="task and data", choices=(0, 1)
    )
    alpha_dir: float = option(0.5, "concentration of the Dirichlet split (--iid 0)", group="task and data", above=0)

    model_name: str = option("roberta-large", "a masked or causal language model: hub id or folder", group="model")
    dtype: str = option("bfloat16", "number format of the model", group="model", choices=("bfloat16", "float32"))
    device: str = option("auto", "auto (cuda when there is one), cpu, cuda or cuda:N", group="model")
    batch_size: int = option(
        0, "texts in a forward pass, each with all candidates; 0: 8 on a CPU, 64 on a GPU", group="model", at_least=0
    )
    cache_mb: int = option(
        1024, "memory for texts computed once (causal models, --prompt_position suffix), MiB", group="model", at_least=0
    )
    zero_lm_bias: int = option(
        1, "masked models: set the bias of the language-model head to zero, as BBT does", group="model", choices=(0, 1)
    )
    llama_causal: int = option(
        1, "LLaMA models answer as causal language models; there is no other way here", group="model", choices=(0, 1)
    )

    n_prompt_tokens: int = option(50, "n, prompt vectors", group="prompt", at_least=1)
    cat_or_add: str = option(
        "add",
        "masked models: add the prompt to placeholder tokens, or put it in front",
        group="prompt",
        choices=("add", "cat"),
    )
    prompt_position: str = option(
        "suffix",
        "causal models: prompt behind the start token, or between text and template tail",
        group="prompt",
        choices=("prefix", "suffix"),
    )
    init_prompt: str = option(
        "auto",
        "p0: zeros; tokens (embeddings of random tokens); or a text; auto: tokens for cat, else zeros",
        group="prompt",
    )
    intrinsic_dim: int = option(500, "d, numbers that are searched", group="prompt", at_least=1)
    alpha: float = option(1.0, "scale of the random projection", group="prompt", above=0)

    sigma: float = option(1.0, "initial step size", group="search", above=0)
    bound: float = option(0.0, "keep every coordinate within ±bound; 0: no bound", group="search", at_least=0)
    local_iter: int = option(8, "generations at a site in a round", group="search", at_least=1)
    local_popsize: int = option(
        5, "candidates in a generation, at least 2; 0: 4 + 3 ln(intrinsic_dim)", group="search", at_least=0
    )
    local_seeds: str = option(
        "fixed",
        "random directions of the sites: the same always (published code), new each round, or new each round and site",
        group="search",
        choices=("fixed", "round", "site"),
    )
    loss_type: str = option(
        "ce", "cross entropy, hinge (margin 2) or minus the metric", group="search", choices=("ce", "hinge", "perf")
    )
    perturb: int = option(0, "1: divide the loss by the loss on perturbed texts", group="search", choices=(0, 1))
    perturb_rate: float = option(0.5, "share of tokens replaced in perturbed texts", group="search", above=0, at_most=1)
    norm_prompt: int = option(0, "1: limit the length of search points", group="search", choices=(0, 1))
    prompt_norm_threshold: float = option(15.0, "that length; grows by 1 a round", group="search", above=0)
    prompt_norm_threshold_upper: float = option(
        20.0, "... while the global mean is shorter than this", group="search", above=0
    )
    seed: int = option(42, "seed of everything random in the job", group="search")

    eval_clients: str = option(
        "first", "sites that evaluate on test data, and share it among them: names, first, or all", group="evaluation"
    )

    def __post_init__(self):
        check_fields(self)
        if self.local_popsize == 1:
            raise UserError(
                "--local_popsize 1: CMA-ES needs at least 2 candidates in a generation (or 0 for its default)"
            )
        if self.llama_causal == 0:
            raise UserError(
                "--llama_causal 0: LLaMA models are supported as causal language models only; leave it at 1"
            )
        if self.loss_type == "perf" and self.perturb:
            raise UserError(
                "--loss_type perf --perturb 1: the ratio of two accuracies would reward the wrong prompt; "
                "use --loss_type ce or hinge with --perturb 1"
            )
        if self.dataset and self.data_path:
            raise UserError(
                "--dataset and --data_path exclude each other: a site uses its own file or its share, not both"
            )

    @property
    def popsize(self) -> int:
        """λ with the default filled in."""
        return self.local_popsize or 4 + int(3 * math.log(self.intrinsic_dim))

    @property
    def task(self) -> str:
        """The task's name or file."""
        return self.task_file or self.task_name


@dataclass(frozen=True)
class ServerConfig:
    """What the server's controller is told."""

    num_rounds: int = option(10, "rounds", group="server", at_least=1)
    min_clients: int = option(1, "answers that a round needs; with fewer the job fails", group="server", at_least=1)
    covariance: str = option(
        "full",
        "form in which the covariance travels to the sites",
        group="server",
        choices=("full", "diagonal", "identity"),
    )
    sigma_floor: float = option(
        0.0,
        "the sites' step size never falls below this; 0: no floor (the published code's 0.5 had no effect)",
        group="server",
        at_least=0,
    )
    round_timeout: int = option(
        3600, "seconds after which a round goes on without the sites that are missing", group="server", at_least=1
    )
    setup_timeout: int = option(
        3600, "the same for the first answer, which includes loading model and data", group="server", at_least=1
    )

    def __post_init__(self):
        check_fields(self)


def check_fields(config: Any) -> None:
    """Check every option of a config against its choices and limits.

    Raises:
        UserError: names the flag, the value and what would be right.
    """
    for item in fields(config):
        value, limits = getattr(config, item.name), item.metadata
        flag = f"--{item.name} {value}"
        if limits["choices"] is not None and value not in limits["choices"]:
            raise UserError(f"{flag}: must be one of {', '.join(map(str, limits['choices']))}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{flag}: must be a finite number")
        if limits["at_least"] is not None and value < limits["at_least"]:
            raise UserError(f"{flag}: must be at least {limits['at_least']}")
        if limits["above"] is not None and value <= limits["above"]:
            raise UserError(f"{flag}: must be above {limits['above']}")
        if limits["at_most"] is not None and value > limits["at_most"]:
            raise UserError(f"{flag}: must be at most {limits['at_most']}")


def add_flags(parser: argparse.ArgumentParser, *configs: type) -> None:
    """Add a flag for every option of the config classes, in their groups, without defaults (see `build`)."""
    groups: dict[str, Any] = {}
    for config in configs:
        hints = get_type_hints(config)
        for item in fields(config):
            name = item.metadata["group"]
            groups.setdefault(name, parser.add_argument_group(name))
            default = item.default if item.default != "" else "none"
            groups[name].add_argument(
                f"--{item.name}",
                type=hints[item.name],
                default=argparse.SUPPRESS,
                metavar=_metavar(item),
                help=f"{item.metadata['help']} [{default}]".replace("%", "%%"),
            )


def build(config: type[Config], given: Mapping[str, Any]) -> Config:
    """A config from the options given; the others keep their defaults, and names of other configs are passed over."""
    return config(**{item.name: given[item.name] for item in fields(config) if item.name in given})


def parse_site_flags(argv: Sequence[str]) -> tuple[SiteConfig, list[str]]:
    """Read the flags of a site's script.

    Returns:
        The config, and sentences about options that have no meaning any more.
    """
    parser = argparse.ArgumentParser(prog="fedbpt_train.py", allow_abbrev=False, description="A FedBPT site.")
    add_flags(parser, SiteConfig)
    add_retired_flags(parser)
    given = vars(parser.parse_args(argv))
    return build(SiteConfig, given), answer_retired(given)


def to_argv(config: Any, leave_out: Iterable[str] = ()) -> list[str]:
    """The flags that give this config, those at their defaults left out."""
    argv = []
    for item in fields(config):
        value = getattr(config, item.name)
        if value != item.default and item.name not in leave_out:
            argv += [f"--{item.name}", str(value)]
    return argv


def as_dict(config: Any) -> dict[str, Any]:
    """Every option with its value."""
    return asdict(config)


def _metavar(item: Field) -> str:
    if item.metadata["choices"] is not None:
        return "{" + ",".join(map(str, item.metadata["choices"])) + "}"
    return item.name.rsplit("_", 1)[-1].upper()
