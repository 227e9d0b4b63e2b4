"""The options of an LP-FL job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from flaretune.config.options import option
from flaretune.config.shared import ADAPTER, SERVER, SOFT, TASK, TRAINING, ServerConfig, SiteConfig
from flaretune.errors import UserError


@dataclass(frozen=True)
class LPFLConfig(SiteConfig):
    """What a site of an LP-FL job is told."""

    method: ClassVar[str] = "LP-FL"
    local_options: ClassVar[tuple[str, ...]] = (
        *SiteConfig.local_options,
        "unlabelled_path",
        "gradient_checkpointing",
        "gradient_accumulation",
    )

    unlabelled: int = option(
        0,
        "unlabelled texts, of what is left of the training data; shared out over all sites, or, with --data_path, of "
        "this site alone",
        group=TASK,
        main=True,
        at_least=0,
    )
    unlabelled_path: str = option(
        "", "this site's own unlabelled file instead (CSV, JSONL, Parquet with the text columns)", group=TASK
    )

    tuning: str = option(
        "lora", "LoRA adapters (LP-FL), or every parameter (FP-FL)", group=ADAPTER, main=True, choices=("lora", "full")
    )
    lora_rank: int = option(8, "rank of the adapters (r)", group=ADAPTER, main=True, at_least=1)
    lora_alpha: float = option(
        16.0, "scale of the adapters: their product is multiplied by this / r", group=ADAPTER, above=0
    )
    lora_dropout: float = option(
        0.0, "share of an adapter's inputs that training drops", group=ADAPTER, at_least=0, at_most=0.9
    )
    target_modules: str = option(
        "auto",
        "layers that get one: auto (PEFT's choice for the architecture), all-linear, or names, separated by commas",
        group=ADAPTER,
    )
    freeze_a: int = option(
        0,
        "1: A stays as it was drawn, B alone is trained and sent: about half the bytes, exact averaging (FFA-LoRA)",
        group=ADAPTER,
        choices=(0, 1),
    )

    local_epochs: int = option(2, "passes over a site's texts in a round", group=TRAINING, at_least=1)
    local_steps: int = option(
        8,
        "training steps that a site makes in a round at the least, by further passes: few texts would else give few",
        group=TRAINING,
        at_least=0,
    )
    learning_rate: float = option(
        0.0, "learning rate of AdamW; 0: 1e-3 for LoRA, 2e-5 for every parameter", group=TRAINING, main=True, at_least=0
    )
    weight_decay: float = option(0.0, "weight decay of AdamW", group=TRAINING, at_least=0)
    train_batch_size: int = option(8, "texts in a training step", group=TRAINING, at_least=1)
    gradient_accumulation: int = option(
        1, "forward and backward passes that a training step's texts are divided among", group=TRAINING, at_least=1
    )
    gradient_checkpointing: int = option(
        0, "1: compute activations a second time instead of keeping them (large models)", group=TRAINING, choices=(0, 1)
    )

    soft_labels: str = option(
        "on", "off: learn from the labelled texts alone", group=SOFT, main=True, choices=("on", "off")
    )
    soft_portion: float = option(
        0.25, "share of the unlabelled texts that joins each round, from the second on", group=SOFT, above=0, at_most=1
    )
    soft_select: str = option(
        "balanced",
        "which go first: as they stand, the most confident, or the most confident of each class in equal numbers",
        group=SOFT,
        choices=("order", "confident", "balanced"),
    )
    soft_temperature: float = option(1.0, "divides the logits: below 1 the labels are harder", group=SOFT, above=0)
    soft_weight: float = option(
        1.0, "weight of a soft-labelled text in the loss; a labelled one has 1", group=SOFT, above=0
    )
    soft_refresh: int = option(
        0, "1: texts that have joined are labelled anew by each round's model", group=SOFT, choices=(0, 1)
    )
    soft_prior: str = option(
        "as_is",
        "uniform: correct the model's preference for a class by its mean over the texts (batch calibration)",
        group=SOFT,
        choices=("as_is", "uniform"),
    )
    soft_noise: float = option(
        0.0,
        "for experiments: share of the soft labels that are replaced by random ones",
        group=SOFT,
        at_least=0,
        at_most=1,
    )

    @property
    def inline_arrays(self) -> bool:
        return self.tuning == "lora"  # every parameter of a model is more than a message should hold

    def __post_init__(self):
        super().__post_init__()
        if self.soft_labels == "on" and not self.unlabelled and not self.unlabelled_path:
            raise UserError(
                "--soft_labels on needs unlabelled texts: give --unlabelled N, or --unlabelled_path FILE at each site; "
                "or learn from the labelled ones alone with --soft_labels off"
            )
        if self.tuning == "full" and self.dp_noise:
            raise UserError(
                f"--tuning full --dp_noise {self.dp_noise:g}: noise on every parameter leaves nothing of a model; "
                "use --tuning lora"
            )
        if self.tuning == "full" and self.freeze_a:
            raise UserError("--tuning full --freeze_a 1: there is no A where every parameter is trained; leave one out")
        if self.gradient_accumulation > self.train_batch_size:
            raise UserError(
                f"--gradient_accumulation {self.gradient_accumulation}: a step of --train_batch_size "
                f"{self.train_batch_size} texts cannot be divided into more passes than texts"
            )


@dataclass(frozen=True)
class LPFLServerConfig(ServerConfig):
    """What the server of an LP-FL job is told."""

    init_adapter: str = option(
        "", "adapter folder, on the server, of an earlier run to go on from; else a new adapter", group=SERVER
    )
