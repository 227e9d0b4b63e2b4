"""Settings of small prompts and adapters, for tests that are about something else."""

from __future__ import annotations

from typing import Any

from flaretune.models.lora import TuneSettings
from flaretune.models.prompt_settings import PromptSettings

PROMPT = {
    "n_prompt_tokens": 3,
    "intrinsic_dim": 10,
    "alpha": 1.0,
    "sigma": 1.0,
    "seed": 1,
    "init_prompt": "auto",
    "cat_or_add": "add",
    "prompt_position": "prefix",
}
LORA = {
    "lora_rank": 4,
    "lora_alpha": 8.0,
    "target_modules": "auto",
    "first_layer": "0",
    "seed": 1,
    "tuning": "lora",
    "gradient_checkpointing": 0,
}


def prompt_settings(**changed: Any) -> PromptSettings:
    return PromptSettings(**{**PROMPT, **changed})


def tune_settings(**changed: Any) -> TuneSettings:
    return TuneSettings(**{**LORA, **changed})
