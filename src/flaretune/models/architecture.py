"""Which language model a checkpoint holds, by its configuration: masked or causal, by itself or in a multimodal one."""

from __future__ import annotations

import logging

import torch
import transformers
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from flaretune.errors import UserError
from flaretune.tasks.spec import Kind

log = logging.getLogger(__name__)

CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel", "ModelWithLMHead", "GenerationDecoder")  # of architectures' names

# Where the weights of the language model lie in a multimodal checkpoint, and where in one of its own.
IN_MULTIMODAL = {
    r"^(language_model|text_model)\.model\.": "model.",
    r"^(language_model|text_model)\.lm_head\.": "lm_head.",
    r"^model\.(language_model|text_model)\.": "model.",
}


def is_multimodal(config: PreTrainedConfig) -> bool:
    """Whether a checkpoint is of a model that takes more than text."""
    return _architecture(config).endswith("ForConditionalGeneration")


def place_in_whole(model: torch.nn.Module, config: PreTrainedConfig | None) -> tuple[str, str]:
    """How names of modules begin in a language model, and in the multimodal model that it was taken out of.

    Returns:
        As ``"model."`` and ``"model.language_model."``; both empty where it was taken out of none, or where that
        cannot be made here, for want of a library for images, say.
    """
    if config is None or not is_multimodal(config):
        return "", ""
    try:
        with torch.device("meta"):
            whole = getattr(transformers, _architecture(config))(config)
    except (AttributeError, ImportError) as error:
        return _nowhere(f"it cannot be made here: {' '.join(str(error).split())}")
    embeddings = model.get_input_embeddings()
    around = [(n, m) for n, m in model.named_modules() if m is not embeddings and embeddings in m.modules()]
    for own, inner in around:  # the model, and what is around the word embeddings in it
        outer = [name for name, module in whole.named_modules() if type(module) is type(inner)]
        if len(outer) == 1:
            return own and f"{own}.", f"{outer[0]}."
    return _nowhere(f"{type(whole).__name__} has it in no one place")


def _nowhere(why: str) -> tuple[str, str]:
    log.warning("PEFT will load these adapters onto the language model alone, not onto the whole checkpoint (%s)", why)
    return "", ""


def language_model_of(config: PreTrainedConfig, name: str) -> tuple[PreTrainedConfig, Kind]:
    """The configuration of a language model, that inside a multimodal one if it is that; and its kind.

    Where transformers finds a language model by the configuration of the whole alone (Mllama), it is that.

    Args:
        name: of the model, for messages.

    Raises:
        UserError: it has no language model of either kind, or one inside a quantised multimodal model.
    """
    architecture = _architecture(config)
    inside = getattr(config, "text_config", None)
    by_itself = type(inside) in MODEL_FOR_CAUSAL_LM_MAPPING
    if is_multimodal(config) and (by_itself or _known_by_the_whole(config, inside)):
        if getattr(config, "quantization_config", None):  # whose names are those of the whole
            raise UserError(
                f"--model_name {name}: a language model cannot be taken out of a quantised multimodal checkpoint; use "
                "the model as it was before, or a quantised language model"
            )
        inside.tie_word_embeddings = getattr(config, "tie_word_embeddings", inside.tie_word_embeddings)
        return inside if by_itself else config, "causal"
    if is_multimodal(config) and inside is not None:
        raise UserError(
            f"--model_name {name}: the installed transformers has no class for the language model in a {architecture} "
            "alone; use a model of text only, or a multimodal one around a language model that has a class (Gemma 3 "
            "and 4, Llama 4, Mistral 3, Qwen3.5, …)"
        )
    either = architecture.endswith("WithLMHeadModel") and not getattr(config, "causal", True)  # XLM, Flaubert
    masked = either or architecture.endswith(("ForMaskedLM", "ForPreTraining"))
    if masked and type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        return config, "masked"
    if architecture.endswith(CAUSAL_ENDINGS) and type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return config, "causal"
    raise UserError(
        f"--model_name {name}: its architecture is {architecture or 'not stated in config.json'}, but a masked "
        "(…ForMaskedLM) or a causal (…ForCausalLM) language model is needed, or a multimodal one around a causal one"
    )


def _architecture(config: PreTrainedConfig) -> str:
    return (getattr(config, "architectures", None) or [""])[0]


def _known_by_the_whole(config: PreTrainedConfig, inside: PreTrainedConfig | None) -> bool:
    """Whether the class that is known for the whole is of the language model in it."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or inside is None:
        return False
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].config_class is type(inside)
