"""What both methods' jobs are told, and how a site's script reads it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from flaretune.config.options import add_flags, build, check_fields, option
from flaretune.errors import UserError
from flaretune.retired_options import add_retired_flags, answer_retired

SiteKind = TypeVar("SiteKind", bound="SiteConfig")

# Headings of --help, with the sentence that stands under each.
TASK, MODEL, PROMPT, SEARCH, EVALUATION, SERVER = "task and data", "model", "prompt", "search", "evaluation", "server"
ADAPTER, TRAINING, SOFT = "adapter", "training", "soft labels"
GROUPS = {
    TASK: "What is asked, and the labelled texts that it is learned from.",
    MODEL: "The language model that answers.",
    PROMPT: "The prompt vectors that steer the model, which stays as it is, and the numbers they are made from.",
    SEARCH: "CMA-ES, which searches these numbers, at every site in every round.",
    ADAPTER: "What is trained and sent: LoRA adapters, or every parameter.",
    TRAINING: "How a site trains it in every round.",
    SOFT: "Labels that the global model gives to a site's unlabelled texts, which then join its labelled ones.",
    EVALUATION: "Where test accuracy comes from; it never chooses what is kept.",
    SERVER: "How many rounds, and what a round waits for.",
}


@dataclass(frozen=True)
class SiteConfig:
    """What every site's script is told by its flags. The sites of a job share these, but for data and device."""

    method: ClassVar[str]  # as people write it
    takes_published_flags: ClassVar[bool] = False  # whether the options in `retired_options` get an answer

    @property
    def inline_arrays(self) -> bool:
        """Whether arrays travel in the messages themselves; otherwise as NVFlare's downloads, for large ones."""
        return True

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
    seed: int = option(42, "seed of everything random in the job", group=TASK)

    eval_clients: str = option(
        "first", "sites that evaluate on test data and share it among them: first, all, or names", group=EVALUATION
    )

    def __post_init__(self):
        check_fields(self)
        if self.dataset and self.data_path:
            raise UserError(
                "--dataset and --data_path exclude each other: a site uses its own file or its share, not both"
            )

    @classmethod
    def script(cls) -> str:
        """File name of the sites' script."""
        return f"{cls.method.replace('-', '').lower()}_train.py"

    @property
    def task(self) -> str:
        """The task's name or file."""
        return self.task_file or self.task_name


@dataclass(frozen=True)
class ServerConfig:
    """What every server's controller is told."""

    num_rounds: int = option(10, "number of rounds", group=SERVER, at_least=1)
    min_clients: int = option(1, "answers that a round needs; with fewer the job fails", group=SERVER, at_least=1)
    round_timeout: int = option(
        3600, "seconds after which a round goes on without the sites that have not answered", group=SERVER, at_least=1
    )
    setup_timeout: int = option(
        3600, "the same for the first answer, for which sites load model and data", group=SERVER, at_least=1
    )

    checkpoint: str = option(
        "",
        "folder on the server that the run is kept in after every round; a job that is told the same folder goes on "
        "from there",
        group=SERVER,
    )

    def __post_init__(self):
        check_fields(self)


def parse_site_flags(config: type[SiteKind], argv: Sequence[str]) -> tuple[SiteKind, list[str]]:
    """Read the flags of a site's script.

    Args:
        config: the method's.
        argv: the flags.

    Returns:
        The config, and sentences about options that have no meaning any more.
    """
    method = config.method
    parser = argparse.ArgumentParser(
        prog=config.script(),
        usage="%(prog)s [--option value ...]",
        allow_abbrev=False,
        description=f"The script of a {method} site. NVFlare starts it: put these flags into a job's app_config.",
    )
    add_flags(parser, config, groups=GROUPS)
    if config.takes_published_flags:
        add_retired_flags(parser)
    given = vars(parser.parse_args(argv))
    return build(config, given), answer_retired(given)
