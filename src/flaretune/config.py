"""The options of a FedBPT job: one source for flags, defaults, help texts and checks."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any, TypeVar, get_type_hints

from flaretune.errors import UserError
from flaretune.retired_options import add_retired_flags, answer_retired

Config = TypeVar("Config")

# Headings of --help, with the sentence that stands under each.
TASK, MODEL, PROMPT, SEARCH, EVALUATION, SERVER = "task and data", "model", "prompt", "search", "evaluation", "server"
GROUPS = {
    TASK: "What is asked, and the labelled texts that it is learned from.",
    MODEL: "The language model that answers; it is never changed.",
    PROMPT: "The prompt vectors that steer it, and the numbers they are made from.",
    SEARCH: "CMA-ES, which searches these numbers, at every site in every round.",
    EVALUATION: "Where test accuracy comes from; it never chooses a prompt.",
    SERVER: "How many rounds, and what a round waits for.",
}


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

    task_name: str = option("sst2", "a shipped task: `python -m flaretune tasks` lists them", group=TASK)
    task_file: str = option("", "a task of your own, a TOML file, instead of --task_name", group=TASK)
    dataset: str = option(
        "", "hub id, or folder of train and test file, in place of the data set that the task names", group=TASK
    )
    data_path: str = option(
        "", "this site's own labelled file (CSV, JSONL, Parquet); no other site sees it", group=TASK
    )
    k_shot: int = option(
        16,
        "labelled texts per class to train on, and as many to compare prompts on; shared out over all sites, or, "
        "with --data_path, of this site alone",
        group=TASK,
        at_least=1,
    )
    num_users: int = option(
        0,
        "accepted for the published command line; the data is shared out over the clients that the job has",
        group=TASK,
        at_least=0,
    )
    iid: int = option(
        1, "1: every share has the same mix of labels; 0: mixes differ, see --alpha_dir", group=TASK, choices=(0, 1)
    )
    alpha_dir: float = option(
        0.5, "with --iid 0, the Dirichlet concentration: the smaller, the more the shares differ", group=TASK, above=0
    )

    model_name: str = option("roberta-large", "masked or causal language model: hub id or folder", group=MODEL)
    dtype: str = option("bfloat16", "number format to compute in", group=MODEL, choices=("bfloat16", "float32"))
    device: str = option("auto", "auto (cuda where there is one), cpu, cuda or cuda:N", group=MODEL)
    batch_size: int = option(
        0, "texts in a forward pass, each with all candidates; 0: 8 on a CPU, 64 on a GPU", group=MODEL, at_least=0
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

    n_prompt_tokens: int = option(50, "length of the prompt in tokens (n)", group=PROMPT, at_least=1)
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
    intrinsic_dim: int = option(500, "how many numbers are searched (d)", group=PROMPT, at_least=1)
    alpha: float = option(1.0, "scale of the random projection that makes a prompt of them", group=PROMPT, above=0)

    sigma: float = option(1.0, "initial step size", group=SEARCH, above=0)
    bound: float = option(0.0, "keep every searched number within ±bound; 0: no bound", group=SEARCH, at_least=0)
    local_iter: int = option(8, "generations that a site searches in a round", group=SEARCH, at_least=1)
    local_popsize: int = option(
        5, "candidates in a generation, 2 or more; 0: 4 + 3 ln(intrinsic_dim)", group=SEARCH, at_least=0
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
    seed: int = option(42, "seed of everything random in the job", group=SEARCH)

    eval_clients: str = option(
        "first", "sites that evaluate on test data and share it among them: first, all, or names", group=EVALUATION
    )

    def __post_init__(self):
        check_fields(self)
        if self.local_popsize == 1:
            raise UserError(
                "--local_popsize 1: CMA-ES needs at least 2 candidates in a generation (or 0 for its default)"
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

    num_rounds: int = option(10, "number of rounds", group=SERVER, at_least=1)
    min_clients: int = option(1, "answers that a round needs; with fewer the job fails", group=SERVER, at_least=1)
    covariance: str = option(
        "full",
        "part of the covariance that is sent to the sites: all (d²/2 numbers), its diagonal, or none",
        group=SERVER,
        choices=("full", "diagonal", "identity"),
    )
    sigma_floor: float = option(
        0.0,
        "the sites' step size never falls below this; 0: no floor",
        group=SERVER,
        at_least=0,
    )
    round_timeout: int = option(
        3600, "seconds after which a round goes on without the sites that have not answered", group=SERVER, at_least=1
    )
    setup_timeout: int = option(
        3600, "the same for the first answer, for which sites load model and data", group=SERVER, at_least=1
    )

    def __post_init__(self):
        check_fields(self)


def check_fields(config: Any) -> None:
    """Check every option of a config against its type, choices and limits.

    Raises:
        UserError: names the flag, the value and what would be right.
    """
    hints = get_type_hints(type(config))
    for item in fields(config):
        value, limits = getattr(config, item.name), item.metadata
        flag, wanted = f"--{item.name} {value}", hints[item.name]
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise UserError(f"--{item.name} {value!r}: must be of type {wanted.__name__}")
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


def add_flags(parser: argparse.ArgumentParser, *configs: type, only: Sequence[str] | None = None) -> None:
    """Add a flag for every option of the config classes, in their groups, without defaults (see `build`).

    Args:
        parser: gets the flags.
        configs: dataclasses whose fields are made by `option`.
        only: names of the options to add; None for all.
    """
    groups: dict[str, Any] = {}
    for config in configs:
        hints = get_type_hints(config)
        for item in fields(config):
            if only is not None and item.name not in only:
                continue
            name = item.metadata["group"]
            if name not in groups:
                groups[name] = parser.add_argument_group(name, GROUPS.get(name))
            default = "" if item.default == "" else f" (default: {item.default})"
            groups[name].add_argument(
                f"--{item.name}",
                type=hints[item.name],
                default=argparse.SUPPRESS,
                metavar=_metavar(item),
                help=f"{item.metadata['help']}{default}".replace("%", "%%"),
            )


def build(config: type[Config], given: Mapping[str, Any]) -> Config:
    """A config from the options given; the others keep their defaults, and names of other configs are passed over."""
    return config(**{item.name: given[item.name] for item in fields(config) if item.name in given})


def parse_site_flags(argv: Sequence[str]) -> tuple[SiteConfig, list[str]]:
    """Read the flags of a site's script.

    Returns:
        The config, and sentences about options that have no meaning any more.
    """
    parser = argparse.ArgumentParser(
        prog="fedbpt_train.py",
        usage="%(prog)s [--option value ...]",
        allow_abbrev=False,
        description="The script of a FedBPT site. NVFlare starts it: put these flags into a job's app_config.",
    )
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
            # a text that begins with a hyphen would be taken for a flag of its own
            starts_like_a_flag = isinstance(value, str) and value.startswith("-")
            argv += [f"--{item.name}={value}"] if starts_like_a_flag else [f"--{item.name}", str(value)]
    return argv


def as_dict(config: Any) -> dict[str, Any]:
    """Every option with its value."""
    return asdict(config)


def _metavar(item: Field) -> str:
    if item.metadata["choices"] is not None:
        return "{" + ",".join(map(str, item.metadata["choices"])) + "}"
    return {int: "N", float: "X"}.get(type(item.default)) or item.name.rsplit("_", 1)[-1].upper()
