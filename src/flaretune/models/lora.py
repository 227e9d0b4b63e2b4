"""LoRA adapters on a pretrained model, through PEFT (Hu et al., arXiv 2106.09685)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer, ParamWrapper

from flaretune.errors import UserError
from flaretune.models.lora_targets import first_layer, from_layer, layer_index, linear_layers, target_modules
from flaretune.models.lower_layers import layers_of
from flaretune.seeding import derive_seed


@dataclass(frozen=True)
class TuneSettings:
    """What, with a model and a task, is trained: the options of these names in `config.LPFLConfig`."""

    lora_rank: int
    lora_alpha: float
    target_modules: str
    first_layer: str
    seed: int
    tuning: str
    gradient_checkpointing: int
    subspace_dim: int = 0
    client_rank: int = 0  # of a client that trains; a saved adapter has the job's


def add_lora(model: torch.nn.Module, kind: str, settings: TuneSettings) -> PeftModel:
    """Wrap a model in LoRA adapters whose product B·A is zero, A drawn from the job's seed, in float32.

    Raises:
        UserError: the target modules match nothing that LoRA can be put on.
    """
    targets = target_modules(model, settings.target_modules)
    first, where = first_layer(model, settings.first_layer), {}
    if first:
        targets, where = from_layer(model, targets, first)
    there = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linear_layers(model)}))
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=targets,
        task_type="CAUSAL_LM" if kind == "causal" else None,
        bias="none",
        **where,
    )
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # set by PEFT as GPT-2's Conv1D needs it
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")  # PEFT 0.21 asks transformers 5.24 so
        torch.manual_seed(derive_seed(settings.seed, "lora"))  # PEFT draws on the CPU, whatever the model's device
        try:
            tuned = get_peft_model(model, config)
        except ValueError as error:
            raise UserError(
                f"--target_modules {settings.target_modules}: PEFT refuses ({error}); there are {there}, auto and "
                "all-linear"
            ) from error
        except AttributeError as error:
            if not getattr(model, "is_quantized", False):
                raise
            raise UserError(  # of layers without a weight, as those that compressed-tensors packs
                f"--model_name {model.config.name_or_path}: PEFT puts no adapters on layers that come quantised like "
                f"these ({error}); use the model as it was before, with --quantize nf4 or int8"
            ) from error
    row = layers_of(model)[0] if first else ""
    trained = [name for name, p in tuned.named_parameters() if p.requires_grad]
    if below := [name for name in trained if first and layer_index(row, name) < first]:
        raise UserError(
            f"--first_layer {settings.first_layer}: PEFT puts adapters below it too, for one on {below[0]}; leave it "
            "out, or name other layers by --target_modules"
        )
    return tuned


def adapter_config(model: PeftModel, place: tuple[str, str]) -> dict[str, Any]:
    """Contents of PEFT's adapter_config.json, but for the name of the model, which is a path at each client.

    Args:
        model: what `add_lora` gave.
        place: of the model in a multimodal one, see `architecture.place_in_whole`; the configuration is for that, and
            names every layer in full, since those of images may be called the same.
    """
    values = json.loads(json.dumps(model.peft_config["default"].to_dict(), sort_keys=True, default=sorted))  # of sets
    values.pop("base_model_name_or_path", None)
    values["inference_mode"] = True
    if place[1]:
        adapted = [n for n, m in model.get_base_model().named_modules() if isinstance(m, LoraLayer)]
        plain = [n for n in adapted if not isinstance(model.get_base_model().get_submodule(n), ParamWrapper)]
        values["target_modules"] = sorted(_replaced(name, *place) for name in plain)
        values["layers_to_transform"] = values["layers_pattern"] = None
    return values


class LoraParameters:
    """The parameters of a model's LoRA adapters, by PEFT's own names.

    Args:
        model: what `add_lora` gave.
        b_alone: train B alone, with A as it was drawn (FFA-LoRA, arXiv 2403.12313).
        place: of the model in a multimodal one, see `architecture.place_in_whole`; names are those of the latter.
    """

    def __init__(self, model: PeftModel, b_alone: bool, place: tuple[str, str]):
        self._model = model
        self._own, self._outer = (f"base_model.model.{beginning}" for beginning in place)
        there = {name: values.shape for name, values in self.whole().items()}
        self._shapes = {name: shape for name, shape in there.items() if not (b_alone and ".lora_A." in name)}
        if b_alone:
            for name, parameter in model.named_parameters():
                if ".lora_A." in name:
                    parameter.requires_grad_(False)

    def trained(self) -> list[torch.nn.Parameter]:
        """The parameters that an optimiser gets."""
        return [p for p in self._model.parameters() if p.requires_grad]

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        optimiser.step()

    def by_name(self) -> dict[str, torch.nn.Parameter]:
        """All adapter parameters themselves."""
        named = dict(self._model.named_parameters())
        state = get_peft_model_state_dict(self._model, named, save_embedding_layers=False)
        return {_replaced(name, self._own, self._outer): parameter for name, parameter in state.items()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of those that are trained."""
        return self._shapes.copy()

    def arrays(self) -> dict[str, np.ndarray]:
        """Those that are trained, float32 copies."""
        whole = self.whole()
        return {name: whole[name] for name in self._shapes}

    def whole(self) -> dict[str, np.ndarray]:
        """All adapter parameters, float32 copies."""
        state = get_peft_model_state_dict(self._model, save_embedding_layers=False)
        return {
            _replaced(name, self._own, self._outer): tensor.detach().float().cpu().numpy().copy()
            for name, tensor in sorted(state.items())
        }

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set adapter parameters by name; those not given keep their values."""
        state = {_replaced(n, self._outer, self._own): torch.from_numpy(np.array(v)) for n, v in arrays.items()}
        set_peft_model_state_dict(self._model, state)


def _replaced(name: str, beginning: str, other: str) -> str:
    """A name with another beginning, if it begins so."""
    return other + name.removeprefix(beginning) if name.startswith(beginning) else name
