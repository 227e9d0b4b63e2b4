"""flaretune: federated few-shot adaptation of language models as NVIDIA FLARE jobs.

The names below are the public API; what they need is imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_WHERE = {
    "Task": ("flaretune.tasks.spec", "TaskSpec"),
    "load_task": ("flaretune.tasks.spec", "load_task"),
    "load_classifier": ("flaretune.methods.registry", "load_classifier"),
    "FedBPTConfig": ("flaretune.methods.fedbpt.config", "FedBPTConfig"),
    "FedBPTServerConfig": ("flaretune.methods.fedbpt.config", "FedBPTServerConfig"),
    "FedBPTRecipe": ("flaretune.flare.recipe", "FedBPTRecipe"),
    "LPFLConfig": ("flaretune.methods.lpfl.config", "LPFLConfig"),
    "LPFLServerConfig": ("flaretune.methods.lpfl.config", "LPFLServerConfig"),
    "LPFLRecipe": ("flaretune.flare.recipe", "LPFLRecipe"),
    "VerbalizerConfig": ("flaretune.methods.verbalizer.config", "VerbalizerConfig"),
    "VerbalizerServerConfig": ("flaretune.methods.verbalizer.config", "VerbalizerServerConfig"),
    "VerbalizerRecipe": ("flaretune.flare.recipe", "VerbalizerRecipe"),
    "UserError": ("flaretune.errors", "UserError"),
}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'flaretune' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
