"""What both methods' jobs are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from flaretune.config.options import check_fields, option
from flaretune.errors import UserError

# Headings of --help, with the sentence that stands under each.
TASK, MODEL, PROMPT, SEARCH, EVALUATION, SERVER = "task and data", "model", "prompt", "search", "evaluation", "server"
ADAPTER, TRAINING, SOFT = "adapter", "training", "soft labels"
PRIVACY = "privacy"
GROUPS = {
    TASK: "What is asked, and the labelled texts that it is learned from.",
    MODEL: "The language model that answers.",
    PROMPT: "The prompt vectors that steer the model, which stays as it is, and the numbers they are made from.",
    SEARCH: "CMA-ES, which searches these numbers, at every site in every round.",
    ADAPTER: "What is trained and sent: LoRA adapters, or every parameter.",
    TRAINING: "How a site trains it in every round.",
    SOFT: "Labels that the global model gives to a site's unlabelled texts, which then join its labelled ones.",
    EVALUATION: "Where test accuracy comes from; it never chooses what is kept.",
    PRIVACY: "Noise on what a site sends, for differential privacy; PRIVACY.md says what it protects.",
    SERVER: "How many rounds, and what a round waits for.",
}


NUMBER_FORMATS = ("bfloat16", "float32")
PATHS = ("model_name", "dataset", "data_path", "unlabelled_path")  # may name a path; a site's script starts elsewhere


@dataclass(frozen=True)
class SiteConfig:
    """What every site's script is told by its flags. The sites of a job share these, but for data and device."""

    method: ClassVar[str]  # as people write it
    takes_published_flags: ClassVar[bool] = False  # whether the options in `retired_options` get an answer
    # Those that may differ from site to site; all others must be the same for answers to fit together.
    local_options: ClassVar[tuple[str, ...]] = (
        "dataset",
        "data_path",
        "task_name",
        "task_file",
        "model_name",
        "device",
        "dtype",
        "batch_size",
        "state_dir",
        "dp_epsilon",
    )

    @property
    def inline_arrays(self) -> bool:
        """Whether arrays travel in the messages themselves; otherwise as NVFlare's downloads, for large ones."""
        return True

    task_name: str = option(
        "sst2",
        "a task that is shipped or in src/tasks_local: `python -m flaretune tasks` lists them",
        group=TASK,
        main=True,
    )
    task_file: str = option("", "a task of your own, a TOML file, instead of --task_name", group=TASK, main=True)
    dataset: str = option(
        "",
        "hub id, folder of train and test data, or one file, whose other rows are the test data, in place of the data "
        "set that the task names",
        group=TASK,
        main=True,
    )
    data_path: str = option(
        "", "this site's own labelled file (CSV, JSONL, Parquet); no other site sees it", group=TASK, main=True
    )
    state_dir: str = option(
        "",
        "folder at this site for what it keeps of a run that the server keeps with --checkpoint; default: in the "
        "site's NVFlare workspace",
        group=TASK,
    )
    k_shot: int = option(
        16,
        "labelled texts per class to train on, and as many to compare prompts on; shared out over all sites, or, "
        "with --data_path, of this site alone",
        group=TASK,
        main=True,
        at_least=1,
    )
    iid: int = option(
        1, "1: every share has the same mix of labels; 0: mixes differ, see --alpha_dir", group=TASK, choices=(0, 1)
    )
    alpha_dir: float = option(
        0.5, "with --iid 0, the Dirichlet concentration: the smaller, the more the shares differ", group=TASK, above=0
    )

    model_name: str = option(
        "roberta-large", "masked or causal language model: hub id or folder", group=MODEL, main=True
    )
    dtype: str = option(
        "auto",
        "number format to compute in; auto: bfloat16 where the device has instructions for it, else float32",
        group=MODEL,
        choices=("auto", *NUMBER_FORMATS),
    )
    device: str = option("auto", "auto (cuda where there is one), cpu, cuda or cuda:N", group=MODEL)
    batch_size: int = option(
        0,
        "texts in a forward pass, each with all candidates; 0: 8 on a CPU, 16 where the text is cached, 64 on a GPU",
        group=MODEL,
        at_least=0,
    )
    seed: int = option(42, "seed of everything random in the job", group=TASK, main=True)

    calibrate: str = option(
        "none",
        "batch: divide the model's preference for some label words out, their mean probabilities over the sites' texts "
        "before anything is learned (batch calibration)",
        group=MODEL,
        choices=("none", "batch"),
    )

    eval_clients: str = option(
        "first",
        "sites that evaluate on test data and share it among them: first, all, or names",
        group=EVALUATION,
    )

    dp_noise: float = option(
        0.0,
        "standard deviation of the Gaussian noise on every number that a site sends of its data, as a multiple of "
        "twice --dp_clip; 0: no noise",
        group=PRIVACY,
        at_least=0,
    )
    dp_clip: float = option(
        1.0, "with --dp_noise, the longest (L2 norm) that a site's change of a round may be", group=PRIVACY, above=0
    )
    dp_delta: float = option(
        1e-5,
        "with --dp_noise, the δ at which ε is told; well below 1 / number of sites",
        group=PRIVACY,
        above=0,
        at_most=0.5,
    )
    dp_epsilon: float = option(
        0.0,
        "for a site's own file: it sends nothing beyond this ε in a run, and nothing without noise; 0: no limit",
        group=PRIVACY,
        at_least=0,
    )
    dp_public_test: int = option(
        0,
        "with --dp_noise, 1: the test data is a public one, so that right answers on it are counted and told",
        group=PRIVACY,
        choices=(0, 1),
    )

    def __post_init__(self):
        check_fields(self)
        if self.dataset and self.data_path:
            raise UserError(
                "--dataset and --data_path exclude each other: a site uses its own file or its share, not both"
            )
        if self.dp_epsilon and not self.dp_noise:
            raise UserError(
                f"--dp_epsilon {self.dp_epsilon:g}: this site sends nothing without noise, and the job has none; give "
                "the job --dp_noise"
            )
        if self.dp_noise and self.calibrate != "none":
            raise UserError(
                f"--dp_noise {self.dp_noise:g} --calibrate {self.calibrate}: the prior is made from the sites' texts, "
                "and told without noise; give --calibrate none"
            )
        if self.dp_public_test and self.data_path:
            raise UserError(
                "--dp_public_test 1 with --data_path: test data that a site takes from its own file is not public; "
                "leave one of them out"
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

    num_rounds: int = option(10, "number of rounds", group=SERVER, main=True, at_least=1)
    min_clients: int = option(1, "answers that a round needs; with fewer the job fails", group=SERVER, at_least=1)
    round_timeout: int = option(
        3600, "seconds after which a round goes on without the sites that have not answered", group=SERVER, at_least=1
    )
    setup_timeout: int = option(
        3600, "the same for the first answer, for which sites load model and data", group=SERVER, at_least=1
    )

    aggregation: str = option(
        "clipped",
        "how the sites' answers are combined: plain, as published; clipped, as published after sites beyond twice the "
        "lower median are held to it; median, coordinate by coordinate, whatever a site claims",
        group=SERVER,
        choices=("plain", "clipped", "median"),
    )
    checkpoint: str = option(
        "",
        "folder on the server that the run is kept in after every round; a job that is told the same folder goes on "
        "from there",
        group=SERVER,
        main=True,
    )

    def __post_init__(self):
        check_fields(self)
