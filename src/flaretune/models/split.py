"""One model over several devices, by transformers' `device_map` and the hooks of accelerate that go with it."""

from __future__ import annotations

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module
from accelerate.utils import align_module_device


def is_split(model: torch.nn.Module) -> bool:
    """Whether its weights are on several devices, or wait in memory or on disk."""
    places = set((getattr(model, "hf_device_map", None) or {}).values())
    return len(places) > 1 or "disk" in places


def hold_embeddings(model: torch.nn.Module, where: torch.device) -> None:
    """Bring word embeddings and output embedding to a device if they wait elsewhere: their rows are read one by one."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    around = next((m for m in model.modules() if outputs in list(m.children())), None)  # may have a bias of its own
    held = [module for module in (inputs, outputs, around) if module is not None and waits(module)]
    for module in held:
        with align_module_device(module, where):
            values = {name: p.detach().clone() for name, p in module.named_parameters(recurse=False)}
        remove_hook_from_module(module)
        for name, value in values.items():
            setattr(module, name, torch.nn.Parameter(value, requires_grad=False))
        add_hook_to_module(module, AlignDevicesHook(execution_device=where))
    if outputs in held and model.config.get_text_config().tie_word_embeddings:
        outputs.weight = inputs.weight


def waits(module: torch.nn.Module) -> bool:
    """Whether a parameter of its own is in memory or on disk until the module's turn comes."""
    return any(parameter.device.type == "meta" for parameter in module.parameters(recurse=False))
