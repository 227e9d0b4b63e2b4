"""A pretrained model made ready to be trained for a task: by LoRA adapters, or in every parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from flaretune.errors import UserError
from flaretune.models.architecture import place_in_whole
from flaretune.models.device import resolve_device, resolve_dtype
from flaretune.models.label_head import narrow_to_label_words, share_label_words
from flaretune.models.label_model import LabelModel
from flaretune.models.load import Pretrained, load_pretrained, reason
from flaretune.models.lora import LoraParameters, TuneSettings, adapter_config, add_lora
from flaretune.models.lora_targets import first_layer
from flaretune.models.lower_layers import LowerLayers, layers_of
from flaretune.models.self_check_plain import check_lower_layers, check_tuned
from flaretune.models.split import waits
from flaretune.models.verbalizer import label_word_ids
from flaretune.tasks.spec import TaskSpec


@dataclass(frozen=True)
class TunedModel:
    """A model to train for a task.

    Attributes:
        dtype: bfloat16 or float32, what is computed in.
        initial: the whole new adapter of the job's rank, float32 by PEFT's names; empty where every parameter is
            trained.
        adapter_config: contents of PEFT's adapter_config.json of it, but for the model's name; None likewise.
    """

    pretrained: Pretrained
    dtype: str
    label_model: LabelModel
    parameters: LoraParameters | AllParameters
    initial: dict[str, np.ndarray]
    adapter_config: dict[str, Any] | None

    @property
    def hidden_size(self) -> int:
        """D of the word embeddings."""
        return self.pretrained.model.get_input_embeddings().weight.shape[1]

    def without_tokenizer(self) -> TunedModel:
        """The same for who has encoded all texts: the tokenizer of a large vocabulary takes some 100 MiB."""
        self.label_model.forget_tokenizer()
        return replace(self, pretrained=replace(self.pretrained, tokenizer=None))


class Parameters(Protocol):
    """What is trained of a model, as arrays by name."""

    def trained(self) -> list[torch.Tensor]:
        """What an optimiser gets."""

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """A step by the gradients that are there."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the arrays."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies, as they are sent."""

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set them; those not given keep their values."""


class AllParameters:
    """Every parameter of a model, by its own names; see `Parameters`."""

    def __init__(self, model: torch.nn.Module):
        self._by_name = dict(model.named_parameters())
        model.requires_grad_(True)

    def trained(self) -> list[torch.nn.Parameter]:
        return list(self._by_name.values())

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        optimiser.step()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(p.shape) for name, p in self._by_name.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: p.detach().float().cpu().numpy().copy() for name, p in self._by_name.items()}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        with torch.no_grad():
            for name, values in arrays.items():
                self._by_name[name].copy_(torch.from_numpy(np.asarray(values)))


def open_tuned_model(
    spec: TaskSpec,
    model_name: str,
    settings: TuneSettings,
    *,
    dtype: str,
    device: str,
    batch_size: int = 0,
    cache_mb: int = 0,
    quantize: str = "none",
) -> TunedModel:
    """Load a model and make it ready to train.

    With LoRA the model stays in `dtype` and the adapters are float32. Where every parameter is trained, parameters are
    float32 and `dtype` is what is computed in.

    Args:
        dtype, device, batch_size, cache_mb, quantize: the options of these names.

    Raises:
        UserError: the model, the task's label words or the target modules do not fit together.
    """
    dtype = resolve_dtype(dtype, resolve_device(device))
    pretrained = load_pretrained(model_name, dtype if settings.tuning == "lora" else "float32", device, quantize)
    return tune_model(pretrained, spec, settings, dtype, batch_size, cache_mb)


def tune_model(
    pretrained: Pretrained, spec: TaskSpec, settings: TuneSettings, dtype: str, batch_size: int = 0, cache_mb: int = 0
) -> TunedModel:
    """Make a model that is loaded ready to train, in place; see `open_tuned_model`.

    Raises:
        UserError: the model, the task's label words or the target modules do not fit together.
    """
    is_lora = settings.tuning == "lora"
    model, kind = pretrained.model, pretrained.kind
    if any(waits(module) for module in model.modules()):
        raise UserError(
            f"--model_name {pretrained.name}: it is larger than what is free of the GPUs, and PEFT puts "
            "no adapters on layers that wait in memory or on disk; use more GPUs, --quantize nf4, or a smaller model"
        )
    if not is_lora and getattr(model, "is_quantized", False):
        raise UserError(
            f"--model_name {pretrained.name} --tuning full: the checkpoint comes quantised, and such weights cannot be "
            "trained; use --tuning lora, or the model as it was before"
        )
    label_ids = label_word_ids(pretrained.tokenizer, spec, kind)
    batch_size = batch_size or (64 if pretrained.device.type == "cuda" else 16)
    if is_lora:
        narrow_to_label_words(model, label_ids, zero_bias=False)
        tuned = add_lora(model, kind, settings)
        place = place_in_whole(model, pretrained.checkpoint)
        parameters: LoraParameters | AllParameters = LoraParameters(tuned, bool(settings.subspace_dim), place)
        initial, config = parameters.whole(), adapter_config(tuned, place)
        if settings.client_rank not in (0, settings.lora_rank):  # what is above is still the job's
            scale = settings.lora_alpha / settings.lora_rank
            own = {"lora_rank": settings.client_rank, "lora_alpha": scale * settings.client_rank}
            tuned = add_lora(tuned.unload(), kind, replace(settings, **own))
            parameters = LoraParameters(tuned, False, place)
    else:
        tuned, parameters = model, AllParameters(model)
        share_label_words(model, label_ids)
        initial, config = {}, None
    if settings.gradient_checkpointing:
        # transformers 5.24 calls it by what it does, and warns of the old name
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        try:
            enable({"use_reentrant": False})
        except ValueError as error:
            raise UserError(f"--gradient_checkpointing 1: {reason(error)}; leave it out for this model") from error
    autocast = not is_lora and dtype == "bfloat16"
    label_model = LabelModel(tuned, pretrained, spec, batch_size, autocast)
    if settings.gradient_checkpointing:
        label_model.feed_forward = None  # what is computed a second time, is without it
    adapter, together = parameters if is_lora else None, batch_size != 1
    try:
        check_tuned(pretrained, label_model, adapter, dtype, together)
    except UserError:
        if label_model.feed_forward is None:
            raise
        label_model.feed_forward = None  # positions may be mixed behind it
        check_tuned(pretrained, label_model, adapter, dtype, together)
    if is_lora and (first := first_layer(model, settings.first_layer)):
        label_model.lower = LowerLayers(layers_of(model)[1], first, cache_mb)
        if cache_mb:
            check_lower_layers(pretrained, label_model, label_model.lower)
    return TunedModel(pretrained, dtype, label_model, parameters, initial, config)
