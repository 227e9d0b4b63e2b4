"""What describes a prompted model without loading it: this module needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from flaretune.tasks.spec import Kind


@dataclass(frozen=True)
class PromptSettings:
    """What, with a model and a task, turns a search point into label word logits. Saved with every prompt.

    Attributes are the options of the same names in `config.FedBPTConfig`; `sigma` is the initial step size,
    which the projection is scaled by.
    """

    n_prompt_tokens: int
    intrinsic_dim: int
    cat_or_add: str
    prompt_position: str
    init_prompt: str
    alpha: float
    sigma: float
    seed: int
    zero_lm_bias: int = 1  # 0 in some prompts of earlier versions


@dataclass(frozen=True)
class ModelFacts:
    """What a client tells of its model.

    Attributes:
        model_type: the architecture family, as transformers calls it.
        hidden_size: D, the size of a prompt vector.
        dtype: bfloat16 or float32, what it computes in.
    """

    name: str
    kind: Kind
    model_type: str
    hidden_size: int
    dtype: str
