"""The options of an LP-FL job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from flaretune.config.client import ClientConfig
from flaretune.config.groups import ADAPTER, SERVER, SOFT, TASK, TRAINING
from flaretune.config.model import AUTO_MAP, CACHE_MB
from flaretune.config.options import option
from flaretune.config.server import ServerConfig


class LPFLConfig(ClientConfig):
    """What a client of an LP-FL job is told."""

    method: ClassVar[str] = "LP-FL"
    client_options: ClassVar[tuple[str, ...]] = (
        *ClientConfig.client_options,
        "unlabelled_path",
        "gradient_checkpointing",
        "cache_mb",
        "client_rank",
    )

    unlabelled: int = option(
        0,
        "unlabelled texts, of what is left of the training data; shared out over all clients, or, with --data_path, "
        "of this client alone",
        group=TASK,
        main=True,
        at_least=0,
    )
    unlabelled_path: str = option(
        "", "this client's own unlabelled file instead (CSV, JSONL, Parquet with the text columns)", group=TASK
    )

    tuning: Literal["lora", "full"] = option("lora", "LoRA adapters, or all parameters", group=ADAPTER, main=True)
    lora_rank: int = option(8, "rank of the adapters (r)", group=ADAPTER, main=True, at_least=1)
    client_rank: int = option(
        0,
        "for a client's own file: rank of the adapters that this client trains and sends, below --lora_rank; the "
        "server averages products B·A then; 0: the job's",
        group=ADAPTER,
        at_least=0,
    )
    lora_alpha: float = option(
        16.0, "scale of the adapters: their product is multiplied by this / r", group=ADAPTER, above=0
    )
    target_modules: str = option(
        "auto",
        "layers that get one: auto (PEFT's choice for the architecture), all-linear, or names, separated by commas",
        group=ADAPTER,
    )
    first_layer: str = option(
        "0",
        "first of the model's layers that gets an adapter, counted from 0, or auto: the middle one; those below are "
        "computed once for each text",
        group=ADAPTER,
    )
    cache_mb: int = CACHE_MB
    subspace_dim: int = option(
        0,
        "how many numbers are trained and sent in place of B (d): every entry of B is one of them or its negative, and "
        "A stays as it was drawn; 0: B itself",
        group=ADAPTER,
        at_least=0,
    )

    local_epochs: int = option(2, "passes over a client's texts in a round", group=TRAINING, at_least=1)
    local_steps: int = option(
        8,
        "training steps that a client makes in a round at the least, by further passes: few texts would else give few",
        group=TRAINING,
        at_least=0,
    )
    learning_rate: float = option(
        0.0,
        "learning rate of AdamW; 0: 1e-3 for LoRA, 0.01 (200 / d)^¼ for d numbers in its B, 2e-5 for all parameters",
        group=TRAINING,
        main=True,
        at_least=0,
    )
    train_batch_size: int = option(8, "texts in a training step", group=TRAINING, at_least=1)
    gradient_checkpointing: Literal[0, 1] = option(
        0, "1: compute activations a second time instead of keeping them (large models)", group=TRAINING
    )

    soft_labels: Literal["on", "off"] = option("on", "off: learn from the labelled texts alone", group=SOFT, main=True)
    soft_portion: float = option(
        0.25, "share of the unlabelled texts that joins each round", group=SOFT, above=0, at_most=1
    )
    soft_select: Literal["order", "confident", "balanced"] = option(
        "balanced",
        "which go first: as they stand, the most confident, or the most confident of each class in equal numbers",
        group=SOFT,
    )

    @property
    def inline_arrays(self) -> bool:
        return self.tuning == "lora"  # every parameter of a model is more than a message should hold

    def lacks(self) -> Iterator[str]:
        if self.soft_labels != "off" and not self.unlabelled and not self.unlabelled_path:
            yield (
                "--soft_labels on needs unlabelled texts: give --unlabelled N, or --unlabelled_path "
                "FILE at each client; or learn from the labelled ones alone with --soft_labels off"
            )

    def clashes(self) -> Iterator[str]:
        yield from super().clashes()
        if self.tuning == "full" and self.dp_noise:
            yield (
                f"--tuning full --dp_noise {self.dp_noise:g}: noise on every parameter leaves nothing of a model; "
                "use --tuning lora"
            )
        if self.first_layer != "auto" and not (self.first_layer.isascii() and self.first_layer.isdigit()):
            yield f"--first_layer {self.first_layer}: must be a whole number, at least 0, or auto"
        if self.tuning == "full" and self.first_layer != "0":
            yield f"--tuning full --first_layer {self.first_layer}: every layer is trained there; leave one out"
        if self.tuning == "full" and self.quantize != "none":
            yield (
                f"--tuning full --quantize {self.quantize}: quantised weights cannot be trained; use --tuning lora, "
                "whose adapters are float32"
            )
        if self.tuning == "lora" and self.quantize == "int4":
            yield (
                "--quantize int4: torchao's int4 has no gradients, which adapters need; use --quantize nf4 (QLoRA) or "
                "int8"
            )
        if self.tuning == "full" and self.device == AUTO_MAP:
            yield f"--tuning full --device {AUTO_MAP}: every parameter is trained on one device; use --tuning lora"
        if self.client_rank > self.lora_rank:
            yield (
                f"--client_rank {self.client_rank}: the server would cut it down to the job's --lora_rank "
                f"{self.lora_rank}; give at most that"
            )
        b_alone = f"--subspace_dim {self.subspace_dim}"
        if self.client_rank and (self.subspace_dim or self.tuning == "full"):
            other, why = "--tuning full", "every parameter is trained"
            if self.subspace_dim:
                other, why = b_alone, "A is the same at all clients"
            yield (
                f"{other} --client_rank {self.client_rank}: there is no rank of a client's own where {why}; leave one "
                "out"
            )
        if self.tuning == "full" and self.subspace_dim:
            yield f"--tuning full {b_alone}: there are no A and B where every parameter is trained; leave one out"


class LPFLServerConfig(ServerConfig):
    """What the server of an LP-FL job is told."""

    init_adapter: str = option(
        "", "adapter folder, on the server, of an earlier run to go on from; else a new adapter", group=SERVER
    )
