"""Which layers of a model get LoRA adapters: PEFT's choice or others, from a layer on, where text reaches them."""

from __future__ import annotations

import re
import warnings

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from transformers.pytorch_utils import Conv1D

from flaretune.errors import UserError
from flaretune.models.lower_layers import layers_of


def first_layer(model: torch.nn.Module, wanted: str) -> int:
    """Index of the first layer that gets adapters.

    Args:
        wanted: a number, or ``auto``: the middle one.

    Raises:
        UserError: there is no such layer, or it is not known which come before others.
    """
    if wanted != "auto" and int(wanted) == 0:
        return 0
    found = layers_of(model)
    if found is None:
        raise UserError(
            f"--first_layer {wanted}: {type(model).__name__} does not have its layers in one row; leave it out"
        )
    n_layers = len(found[1])
    first = n_layers // 2 if wanted == "auto" else int(wanted)
    if first >= n_layers:
        raise UserError(f"--first_layer {wanted}: this model has {n_layers} layers, 0 to {n_layers - 1}")
    return first


def target_modules(model: torch.nn.Module, wanted: str) -> list[str] | str:
    """Names of the modules that get adapters.

    Args:
        wanted: ``auto`` (PEFT's choice for the architecture; where it knows none, all linear layers but those that it
            refuses and those that give more than a linear layer does, as routers of experts; without those that text
            never reaches, as an image encoder's), ``all-linear``, or names separated by commas.

    Raises:
        UserError: a name matches nothing, or no linear layer.
    """
    if wanted == "auto":
        known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model.config.model_type)
        return _without_unreached(model, known if known is not None else _linear_layers_taken(model))
    if wanted == "all-linear":
        return wanted
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    there = linear_layers(model)
    endings = sorted({name.rsplit(".", 1)[-1] for name in there})
    for name in names:
        if not any(layer == name or layer.endswith(f".{name}") for layer in there):
            raise UserError(
                f"--target_modules {name}: no layer of this model has that name; there are {', '.join(endings)}"
            )
    if not names:
        raise UserError(
            f"--target_modules {wanted!r} names nothing; there are {', '.join(endings)}, auto and all-linear"
        )
    return names


def linear_layers(model: torch.nn.Module) -> list[str]:
    """Full names of the layers that LoRA can be put on, the head left out."""
    head = model.get_output_embeddings()
    kinds = ("Linear", "Conv1D", "Linear4bit")  # the last is of bitsandbytes
    return [name for name, module in model.named_modules() if type(module).__name__ in kinds and module is not head]


def from_layer(
    model: torch.nn.Module, targets: list[str] | str, first: int
) -> tuple[list[str], dict[str, list[int] | str]]:
    """Target modules and what else PEFT is told for adapters from a layer on.

    It wants a list then, and takes full names as they are, in whichever layer.
    """
    if isinstance(targets, str):
        there = _linear_modules(model)
        named = [name for name in there if targets == "all-linear" or re.fullmatch(targets, name)]
        targets = sorted({name.rsplit(".", 1)[-1] for name in named})
    row, layers = layers_of(model)
    there = {name for name, _ in model.named_modules()}
    targets = [target for target in targets if target not in there or layer_index(row, target) >= first]
    return targets, {"layers_to_transform": list(range(first, len(layers))), "layers_pattern": row.rsplit(".", 1)[-1]}


def layer_index(row: str, name: str) -> int:
    """Index of the layer, in the row of layers of this name, that a module or parameter belongs to; -1 for none."""
    index = re.search(rf"(?:^|\.){re.escape(row)}\.(\d+)\.", name)
    return int(index[1]) if index else -1


def _linear_layers_taken(model: torch.nn.Module) -> list[str] | str:
    """All linear layers that LoRA can be put on and that PEFT takes; ``all-linear`` where that means the same."""
    layers = linear_layers(model)
    if _takes(model, "all-linear"):
        return "all-linear" if layers == _linear_modules(model) else layers
    endings = sorted({name.rsplit(".", 1)[-1] for name in layers})
    by_ending = {ending: [name for name in layers if name.rsplit(".", 1)[-1] == ending] for ending in endings}
    return [name for names in by_ending.values() if _takes(model, names) for name in names]


def _without_unreached(model: torch.nn.Module, targets: list[str] | str) -> list[str] | str:
    """Target modules without linear layers that text never reaches; full names if there are any such."""
    unreached = _unreached(model)
    if targets == "all-linear":
        named = linear_layers(model)
    elif isinstance(targets, str):
        named = [name for name in linear_layers(model) if re.fullmatch(targets, name)]
    else:
        named = [n for n in linear_layers(model) if any(n == target or n.endswith(f".{target}") for target in targets)]
    return [name for name in named if name not in unreached] if unreached.intersection(named) else targets


@torch.no_grad()
def _unreached(model: torch.nn.Module) -> set[str]:
    """Full names of linear layers that are not called for a text: of image encoders, attention to images, ….

    Of several experts a short text reaches some; one that is in a list with any such counts as reached. A model whose
    weights are quantised is not called: some unpack them then, for good.
    """
    if getattr(model.config, "quantization_config", None) is not None:
        return set()
    called: set[str] = set()
    modules = dict(model.named_modules())
    handles = [m.register_forward_pre_hook(lambda *_, name=n: called.add(name)) for n, m in modules.items()]
    try:
        device = model.get_input_embeddings().weight.device
        ids = torch.arange(8, device=device)[None]
        model(input_ids=ids, attention_mask=torch.ones_like(ids))  # without one transformers warns of padding
    except Exception:  # whatever the model stumbles over: the self-check says it
        return set()
    finally:
        for handle in handles:
            handle.remove()
    row = layers_of(model)
    lists = [n for n, m in modules.items() if isinstance(m, torch.nn.ModuleList) and not (row and m is row[1])]
    several = tuple(f"{n}." for n in lists if any(f"{n}.{i}" in called for i in range(len(modules[n]))))
    return {n for n in linear_layers(model) if n not in called and not n.startswith(several)}


def _linear_modules(model: torch.nn.Module) -> list[str]:
    """Full names of what PEFT takes for linear layers: of subclasses too, which may give more than those do."""
    head = model.get_output_embeddings()
    return [n for n, m in model.named_modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and m is not head]


def _takes(model: torch.nn.Module, targets: list[str] | str) -> bool:
    """Whether PEFT puts adapters on these layers, tried on a copy without weights."""
    with torch.device("meta"):
        outline = type(model)(model.config)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            get_peft_model(outline, LoraConfig(target_modules=targets))
    except ValueError:
        return False
    return True
