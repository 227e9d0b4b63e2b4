"""Models of a shape with random weights, and the black box around one."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaForMaskedLM

from flaretune.models.black_box import BlackBox
from flaretune.models.causal import CausalLM
from flaretune.models.label_head import narrow_to_label_words
from flaretune.models.masked import MaskedLM
from flaretune.models.soft_prompt import SoftPrompt
from flaretune.seeding import derive_seed
from flaretune.tasks.spec import Kind
from measurements.shapes import Shape

ALPHA = SIGMA = 1.0  # the published ones


def random_model(shape: Shape, device: torch.device, seed: int) -> nn.Module:
    """A frozen float32 model in evaluation mode, its weights drawn from a seed."""
    masked = shape.kind == "masked"
    config_class, model_class = (RobertaConfig, RobertaForMaskedLM) if masked else (LlamaConfig, LlamaForCausalLM)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), device:
        torch.manual_seed(derive_seed(seed, "bench", "weights"))
        model = model_class(config_class(**shape.options))
    return model.requires_grad_(False).eval()


def random_prompt(model: nn.Module, n_tokens: int, intrinsic_dim: int, seed: int) -> SoftPrompt:
    """The map from search points to prompts that fits a model of `random_model`."""
    config = model.config
    std = config.initializer_range  # of the word embeddings
    return SoftPrompt(n_tokens, config.hidden_size, intrinsic_dim, std, ALPHA, SIGMA, seed, device=model.device)


def label_word_ids(model: nn.Module) -> np.ndarray:
    """Token ids of two label words, int64, shape (2,)."""
    return np.array([model.config.vocab_size // 3, model.config.vocab_size // 2])


def narrowed(model: nn.Module, kind: Kind) -> nn.Module:
    """A copy whose head answers for the label words only."""
    own = copy.deepcopy(model)
    narrow_to_label_words(own, label_word_ids(model), zero_bias=kind == "masked")
    return own


def black_box_of(model: nn.Module, kind: Kind, prompt: SoftPrompt, batch_size: int, cache_mb: int) -> BlackBox:
    """The black box of a model that `narrowed` gave; the prompt's mode is ``add`` or ``suffix``."""
    pad_id = model.config.pad_token_id or 0
    lm = MaskedLM(model, "add", pad_id) if kind == "masked" else CausalLM(model, pad_id)
    return BlackBox(lm, prompt, batch_size, cache_mb)
