"""Sizes of models whose speed is measured, with random weights: speed does not depend on their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flaretune.errors import UserError
from flaretune.tasks.spec import Kind


@dataclass(frozen=True)
class Shape:
    """A model's size.

    Attributes:
        name: what it is called here.
        kind: masked (RoBERTa's architecture, prompt in mode ``add``) or causal (LLaMA's, mode ``suffix``).
        n_prompt_tokens: n, unless another is asked for: the published 50, and the demo's 5 for causal models.
        options: of `RobertaConfig` or `LlamaConfig`, where they differ from its defaults.
    """

    name: str
    kind: Kind
    n_prompt_tokens: int
    options: Mapping[str, Any]


def _roberta(name: str, layers: int, hidden: int, heads: int) -> Shape:
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
    options = {**sizes, "intermediate_size": 4 * hidden, "vocab_size": 50265, "max_position_embeddings": 514}
    return Shape(name, "masked", 50, {**options, "type_vocab_size": 1, "layer_norm_eps": 1e-5})


_TINY = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}

SHAPES = {
    shape.name: shape
    for shape in (
        _roberta("roberta-base", 12, 768, 12),
        _roberta("roberta-large", 24, 1024, 16),
        Shape(
            "llama",  # small enough for two CPU cores: 134 million parameters
            "causal",
            5,
            {
                "num_hidden_layers": 12,
                "hidden_size": 768,
                "num_attention_heads": 12,
                "intermediate_size": 2048,
                "vocab_size": 32000,
            },
        ),
        Shape(
            "llama-1b",  # LLaMA 3.2 1B
            "causal",
            5,
            {
                "num_hidden_layers": 16,
                "hidden_size": 2048,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "intermediate_size": 8192,
                "vocab_size": 128256,
                "tie_word_embeddings": True,
            },
        ),
        # for trying things out; weights large enough for logits that differ visibly
        Shape(
            "tiny-masked",
            "masked",
            4,
            {**_TINY, "vocab_size": 300, "max_position_embeddings": 200, "initializer_range": 0.3},
        ),
        Shape("tiny-causal", "causal", 4, {**_TINY, "vocab_size": 300, "initializer_range": 0.3}),
    )
}


def find_shapes(names: Sequence[str]) -> list[Shape]:
    """The shapes of these names.

    Raises:
        UserError: there is none of a name.
    """
    for name in names:
        if name not in SHAPES:
            raise UserError(f"shape {name!r} is unknown: use one of {', '.join(SHAPES)}")
    return [SHAPES[name] for name in names]
