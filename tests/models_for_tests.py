"""Tiny, randomly initialised models of several families, saved as a checkpoint folder with a tokenizer that fits.

Use, for instance with pytest's ``tmp_path`` or ``tmp_path_factory`` (saving takes some tens of milliseconds)::

    from tests.models_for_tests import save_tiny_model

    folder = save_tiny_model("roberta", tmp_path)
    open_prompted_model(load_task("sst2"), str(folder), settings, dtype="float32", device="cpu")

The same family, seed and overrides give the same weights in every process. The tokenizers (tokenizers_for_tests.py)
know the label words of the demo's task and of sentence pairs as one token each, every word of ``SENTENCES``, and what
they are given. Weights are float32 and larger than a fresh model's, so that logits differ visibly between texts and
prompts. The models know nothing: their accuracy is that of guessing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from tests.tokenizers_for_tests import bert_like, gpt2_like, llama_like, roberta_like

SLIDING_WINDOW = 8  # of the Gemma families, Mistral and gpt-oss: shorter than most sentences

_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_GEMMA = {
    **_SIZES,
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": SLIDING_WINDOW,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "max_position_embeddings": 256,
}

# family: (tokenizer, model class, what differs from the defaults of its configuration class)
FAMILIES = {
    "roberta": (roberta_like, "RobertaForMaskedLM", {**_SIZES, "type_vocab_size": 1, "max_position_embeddings": 130}),
    "bert": (bert_like, "BertForMaskedLM", {**_SIZES, "max_position_embeddings": 128}),
    "albert": (bert_like, "AlbertForMaskedLM", {**_SIZES, "embedding_size": 16, "max_position_embeddings": 128}),
    "modernbert": (
        roberta_like,
        "ModernBertForMaskedLM",
        {**_SIZES, "max_position_embeddings": 128, "cls_token_id": 0, "sep_token_id": 2},
    ),
    "distilbert": (
        bert_like,
        "DistilBertForMaskedLM",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 128},
    ),
    "llama": (llama_like, "LlamaForCausalLM", {**_SIZES, "num_key_value_heads": 2, "max_position_embeddings": 256}),
    "gpt2": (gpt2_like, "GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "falcon": (gpt2_like, "FalconForCausalLM", {**_SIZES, "new_decoder_architecture": False, "parallel_attn": True}),
    "opt": (
        gpt2_like,
        "OPTForCausalLM",
        {
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "max_position_embeddings": 256,
        },
    ),
    "gemma2": (
        llama_like,
        "Gemma2ForCausalLM",
        {**_GEMMA, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 3.0},
    ),
    "gemma3": (llama_like, "Gemma3ForCausalLM", _GEMMA),
    "mistral": (
        llama_like,
        "MistralForCausalLM",
        {**_SIZES, "num_key_value_heads": 2, "sliding_window": SLIDING_WINDOW, "max_position_embeddings": 256},
    ),
    "gpt_oss": (
        llama_like,
        "GptOssForCausalLM",
        {
            **{name: value for name, value in _GEMMA.items() if name != "query_pre_attn_scalar"},
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
    ),
}


def save_tiny_model(
    family: str, folder: str | Path, *, seed: int = 0, std: float = 0.3, words: Sequence[str] = (), **overrides
) -> Path:
    """Save a model of a family with its tokenizer.

    Args:
        family: a key of ``FAMILIES``.
        folder: where to; made if it does not exist.
        seed: of the weights.
        std: standard deviation of the weights. Biases are drawn too; the weights of norms are spread around what
            they start from.
        words: more words that the tokenizer knows as one token.
        overrides: options of the family's configuration class, e.g. ``tie_word_embeddings=False``.

    Returns:
        The folder, ready for ``load_pretrained`` or the transformers Auto classes.
    """
    transformers.logging.disable_progress_bar()
    make_tokenizer, class_name, options = FAMILIES[family]
    tokenizer = make_tokenizer(words)
    model_class = getattr(transformers, class_name)
    config = model_class.config_class(
        **{
            **options,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **overrides,
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of what is only added to below
        model = model_class(config)
    draw_weights(model, seed, std)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def draw_weights(model: torch.nn.Module, seed: int, std: float) -> None:
    """Set every parameter; biases too, or zeroing one would change nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            drawn = torch.randn(parameter.shape, generator=generator) * std
            if parameter.dim() == 1 and not name.endswith("bias"):  # a norm, around 1 (around 0 in Gemma)
                parameter.add_(drawn)
            else:
                parameter.copy_(drawn)
