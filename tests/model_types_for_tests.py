"""Tiny random models of any model type that the installed transformers knows.

A configuration is made small by the names of its entries: sizes, numbers of layers, heads and experts, which nearly all
types share. What is particular to a type is in `PARTICULAR`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from tests.models_for_tests import draw_weights
from tests.tokenizers_for_tests import gpt2_like, llama_like, roberta_like

LANGUAGE_MODEL = "language_model"  # folder in that of a multimodal model whose own code cannot be asked
D, LAYERS, HEADS, KEY_HEADS, HEAD, FORWARD = 32, 2, 4, 2, 8, 48

# entry of a configuration: what it becomes where the type has it
SMALL = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "word_embed_proj_dim", "embedding_size"), D),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), LAYERS
    ),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads"), HEADS),
    **dict.fromkeys(("encoder_attention_heads", "num_heads"), HEADS),
    **dict.fromkeys(("num_key_value_heads",), KEY_HEADS),
    **dict.fromkeys(("head_dim", "global_head_dim", "attention_head_dim", "query_pre_attn_scalar"), HEAD),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim", "encoder_ffn_dim"), FORWARD),
    **dict.fromkeys(("hidden_dim", "attention_hidden_size", "shared_expert_intermediate_size"), FORWARD),
    "attention_hidden_size": D,
    "moe_intermediate_size": 16,
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "context_length", "n_ctx"), 130),
    "hidden_size_per_layer_input": 8,
    "laurel_rank": 4,
    "sliding_window": 64,
    "state_size": 8,
    "rescale_every": 0,
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "index_head_dim"), HEAD),
    **{"kv_lora_rank": 16, "q_lora_rank": 16, "index_n_heads": 4, "first_k_dense_replace": 1},
    **{"n_group": 1, "topk_group": 1, "router_hidden_size": 16},
}

_MAMBA_2 = {
    **{"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8, "mamba_n_groups": 1},
}
PARTICULAR: dict[str, dict[str, Any]] = {
    "bamba": {**_MAMBA_2, "attn_layer_indices": [1]},
    "granitemoehybrid": {**_MAMBA_2, "layer_types": ["mamba", "attention"]},
    "dots1": {
        "n_shared_experts": 1,
        "layer_types": ["full_attention"] * LAYERS,
        "max_window_layers": LAYERS,
        "n_group": 1,
        "topk_group": 1,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "codegen": {"rotary_dim": 4},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "gptj": {"rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "convbert": {"conv_kernel_size": 9, "head_ratio": 2},
    "falcon_h1": {
        **{"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8},
        **{"embedding_multiplier": 5.6},
    },
    "esmc": {"num_key_value_heads": HEADS},
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"]},
    "gemma3n_text": {
        **{"layer_types": ["sliding_attention", "full_attention"], "num_kv_shared_layers": 0},
        **{"intermediate_size": [FORWARD] * LAYERS, "activation_sparsity_pattern": [0.0] * LAYERS},
    },
    "gemma4": {"image_token_id": 3, "video_token_id": 3, "audio_token_id": 3},  # no token of texts
    "gemma4_text": {"layer_types": ["sliding_attention", "full_attention"], "num_kv_shared_layers": 0},
    "gpt_oss": {"layer_types": ["sliding_attention", "full_attention"]},
    "laguna": {
        **{"layer_types": ["full_attention"] * LAYERS, "mlp_layer_types": ["dense", "sparse"]},
        **{"num_attention_heads_per_layer": [HEADS] * LAYERS},
    },
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": FORWARD, "block_multiple_of": 8},
    "mamba": {"intermediate_size": 64, "time_step_rank": 4},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8},
    "phi": {"partial_rotary_factor": 0.5},
    "phi3": {"rope_scaling": None, "original_max_position_embeddings": 130},
    "yoso": {"hash_code_len": 4, "num_hash": 8},
    "neomme": {"head_dim": 16},
    "nystromformer": {"segment_means_seq_len": 8, "num_landmarks": 4, "conv_kernel_size": 5},
    "bart": {"is_encoder_decoder": False},
    "dbrx": {
        "attn_config": {"kv_n_heads": KEY_HEADS, "rope_theta": 1e4, "clip_qkv": 8},
        "ffn_config": {"hidden_size": D, "ffn_hidden_size": FORWARD, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "emu3": {"vocabulary_map": {"<image>": 5}},
    "emu3_vqgan": {"base_channels": D, "channel_multiplier": [1, 1], "codebook_size": 64, "num_res_blocks": 1},
    "kimi_linear": {
        **{"linear_head_dim": HEAD, "linear_num_heads": HEADS, "layer_types": ["linear_attention", "full_attention"]},
        "mlp_layer_types": ["dense", "sparse"],
    },
    "llama4_vision_model": {"vision_output_dim": D, "projector_input_dim": D, "projector_output_dim": D},
    "mllama_text_model": {"num_hidden_layers": 3, "cross_attention_layers": [1]},
    "mllama_vision_model": {"num_global_layers": 1, "vision_output_dim": 2 * D, "intermediate_layers_indices": [0]},
    "qwen2_vl_vision": {"depth": 2, "embed_dim": D, "num_heads": 2},
    "qwen3_5_vision": {"depth": 2, "out_hidden_size": D, "num_position_embeddings": 16},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [13, 10]},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        **{"layers_block_type": ["linear_attention", "hybrid"] * 2, "num_key_value_heads": HEADS, "mamba_d_state": 8},
        **{"attention_hidden_size": 2 * D, "attention_head_dim": 2 * HEAD, "num_hidden_layers": 4},
    },
    "zamba2": {
        **{"layers_block_type": ["linear_attention", "hybrid"], "num_key_value_heads": HEADS, "mamba_d_state": 8},
        **{"chunk_size": 8, "adapter_rank": 4, "attention_hidden_size": 2 * D, "head_dim": 2 * HEAD},
    },
    "zaya": {"num_experts_per_tok": 1},
}
_LINEAR = {
    **{"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2},
    **{"linear_num_value_heads": 4, "linear_key_head_dim": HEAD, "linear_value_head_dim": HEAD},
}
for _type in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "qwen4_exp_text"):
    PARTICULAR[_type] = _LINEAR
PARTICULAR["qwen4_exp_text"] = {
    **_LINEAR,
    **{"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": HEAD, "indexer_budget": 8},
    "indexer_compress_ratio": 4,
}
PARTICULAR["qwen3_5_moe_vision"] = PARTICULAR["qwen3_5_vision"]


# those for which transformers takes a byte-level tokenizer, whatever was saved
TOKENIZERS = dict.fromkeys(("qwen2", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen4_exp"), gpt2_like)


def save_model_type(model_type: str, kind: str, folder: Path, *, seed: int = 0, std: float = 0.2, **overrides) -> Path:
    """Save a tiny random model of a type, with a tokenizer.

    Args:
        model_type: as transformers calls it.
        kind: masked or causal.
        folder: where to.
        seed: of the weights.
        std: of the weights, see `save_tiny_model`.
        overrides: entries of the configuration.
    """
    transformers.logging.disable_progress_bar()
    architecture = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(model_type, "")
    if kind == "causal" and architecture.endswith("ForConditionalGeneration"):
        save_multimodal(model_type, architecture, folder)
        return Path(folder)
    tokenizer = roberta_like() if kind == "masked" else TOKENIZERS.get(model_type, llama_like)()
    auto = AutoModelForMaskedLM if kind == "masked" else AutoModelForCausalLM
    torch.manual_seed(0)
    config = _small(CONFIG_MAPPING[model_type], tokenizer, overrides)
    if hasattr(config, "causal"):  # of XLM and its kin, which are either
        config.causal = kind == "causal"
    if model_type == "reformer":
        config.is_decoder = kind == "causal"
    model = auto.from_config(config)
    draw_weights(model, seed, std)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def save_multimodal(model_type: str, architecture: str, folder: Path) -> torch.nn.Module:
    """Save a tiny random model that takes images too, with a tokenizer; the model as it was saved.

    Its language model is saved in a folder of its own too where the whole cannot be asked without an image, or not
    be made without further libraries. Of the latter that is all that is saved, by the names that it has in the whole.
    """
    transformers.logging.disable_progress_bar()
    tokenizer = TOKENIZERS.get(model_type, llama_like)()
    config = _small(CONFIG_MAPPING[model_type], tokenizer, {})
    torch.manual_seed(0)
    try:
        model = getattr(transformers, architecture)(config).eval()
        draw_weights(model, 0, 0.2)
        model.save_pretrained(folder)
        language_model = model.language_model if model_type == "llama4" else None
    except ImportError:
        model = language_model = AutoModelForCausalLM.from_config(config.text_config).eval()
        draw_weights(model, 0, 0.2)
        named = {re.sub(r"^model\.", "model.language_model.", n): t for n, t in model.state_dict().items()}
        config.architectures = [architecture]
        config.save_pretrained(folder)
        tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
        weights = {name: tensor.contiguous() for name, tensor in named.items() if name not in tied}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    if language_model is not None:
        language_model.save_pretrained(folder / LANGUAGE_MODEL)
    tokenizer.save_pretrained(folder)
    return model


def _small(config_class: type[PreTrainedConfig], tokenizer: Any, overrides: dict[str, Any]) -> PreTrainedConfig:
    """The configuration of a tiny model with this tokenizer, and of its parts."""
    usual = config_class()
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "unpadded_vocab_size"), len(tokenizer))
    entries = {**SMALL, **sizes}
    if getattr(config_class, "base_config_key", "") == "vision_config":
        entries.update(image_size=28, patch_size=14)
    wanted = _known(config_class, {**entries, **PARTICULAR.get(config_class.model_type, {})})
    if "kv_lora_rank" in wanted:  # keys of all heads are made of it
        wanted["num_key_value_heads"] = HEADS
    for name in config_class.sub_configs:
        if name not in wanted and isinstance(part := getattr(usual, name, None), PreTrainedConfig):
            wanted[name] = _small(type(part), tokenizer, {}).to_dict()
    return config_class(**{**wanted, **ids, **overrides})


def _known(config_class: type[PreTrainedConfig], entries: dict[str, Any]) -> dict[str, Any]:
    """Of entries, those that a configuration has."""
    names = {*config_class().to_dict(), *getattr(config_class, "attribute_map", {})}
    return {name: value for name, value in entries.items() if name in names}
