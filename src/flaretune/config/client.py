"""What the clients of every method are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from flaretune.config.groups import EVALUATION, MODEL, PRIVACY, TASK
from flaretune.config.model import ModelConfig
from flaretune.config.options import option

PATHS = ("model_name", "dataset", "data_path", "unlabelled_path")  # may name a path; a client's script starts elsewhere


class ClientConfig(ModelConfig):
    """What a client is told. The clients of a job share these, but for `client_options`."""

    method: ClassVar[str]  # as people write it
    needs_label_words: ClassVar[bool] = True  # of its task
    # Those that may differ between clients; all others must be the same for answers to fit together.
    client_options: ClassVar[tuple[str, ...]] = (
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
        "", "this client's own labelled file (CSV, JSONL, Parquet); no other client sees it", group=TASK, main=True
    )
    state_dir: str = option(
        "",
        "folder at this client for what it keeps of a run that the server keeps with --checkpoint; default: in the "
        "client's NVFlare workspace",
        group=TASK,
    )
    k_shot: int = option(
        16,
        "labelled texts per class to train on, and as many for validation; shared out over all clients, or, with "
        "--data_path, of this client alone",
        group=TASK,
        main=True,
        at_least=1,
    )
    iid: Literal[0, 1] = option(
        1, "1: every share has the same mix of labels; 0: mixes differ, see --alpha_dir", group=TASK
    )
    alpha_dir: float = option(
        0.5, "with --iid 0, the Dirichlet concentration: the smaller, the more the shares differ", group=TASK, above=0
    )

    device: str = option(
        "auto",
        "auto (cuda where there is one), cpu, cuda, cuda:N, or auto_map: a model larger than one GPU, its layers over "
        "all GPUs of this machine, then its memory, then its disk",
        group=MODEL,
    )
    seed: int = option(42, "seed of everything random in the job", group=TASK, main=True)

    calibrate: Literal["none", "batch"] = option(
        "none",
        "batch: divide the model's preference for some label words out, the geometric mean of their probabilities over "
        "the clients' texts (batch calibration): FedBPT before anything is learned, LP-FL anew in every round",
        group=MODEL,
    )

    eval_clients: str = option(
        "first",
        "clients that evaluate on test data and share it among them: first, all, or names",
        group=EVALUATION,
    )

    dp_noise: float = option(
        0.0,
        "standard deviation of the Gaussian noise on every number that a client sends of its data, as a multiple of "
        "twice --dp_clip; 0: no noise",
        group=PRIVACY,
        at_least=0,
    )
    dp_clip: float = option(
        1.0, "with --dp_noise, the longest (L2 norm) that a client's change of a round may be", group=PRIVACY, above=0
    )
    dp_epsilon: float = option(
        0.0,
        "for a client's own file: it sends nothing beyond this ε in a run, and nothing without noise; 0: no limit",
        group=PRIVACY,
        at_least=0,
    )
    dp_public_test: Literal[0, 1] = option(
        0,
        "with --dp_noise, 1: the test data is a public one, so that correct predictions on it are counted and told",
        group=PRIVACY,
    )

    def clashes(self) -> Iterator[str]:
        if self.state_dir and not Path(self.state_dir).expanduser().is_absolute():
            yield (
                f"--state_dir {self.state_dir}: a client works in a folder of its own in every job, where it would not "
                "find what it has kept; give an absolute path"
            )
        if self.dataset and self.data_path:
            yield "--dataset and --data_path exclude each other: a client uses its own file or its share, not both"
        if self.dp_epsilon and not self.dp_noise:
            yield (
                f"--dp_epsilon {self.dp_epsilon:g}: this client sends nothing without noise, and the job has none; "
                "give the job --dp_noise"
            )
        if self.dp_noise and self.calibrate != "none":
            yield (
                f"--dp_noise {self.dp_noise:g} --calibrate {self.calibrate}: the prior is made from the clients' "
                "texts, and told without noise; give --calibrate none"
            )
        if self.dp_public_test and self.data_path:
            yield (
                "--dp_public_test 1 with --data_path: test data that a client takes from its own file is not public; "
                "leave one of them out"
            )

    def lacks(self) -> Iterator[str]:
        """A sentence for all that is needed and that a client may say itself, so that a job need not."""
        return iter(())

    @property
    def inline_arrays(self) -> bool:
        """Whether arrays travel in the messages themselves; otherwise as NVFlare's downloads, for large ones."""
        return True

    @classmethod
    def script(cls) -> str:
        """File name of the clients' script."""
        return f"{cls.method.replace('-', '').lower()}_train.py"

    @property
    def task(self) -> str:
        """The task's name or file."""
        return self.task_file or self.task_name
