"""Which language model a checkpoint holds, by its configuration: masked or causal, by itself or in a multimodal one."""

from __future__ import annotations

from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from flaretune.errors import UserError
from flaretune.tasks.spec import Kind

CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel", "GenerationDecoder")  # of architectures' names

# Where the weights of the language model lie in a multimodal checkpoint, and where in one of its own.
IN_MULTIMODAL = {
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^model\.language_model\.": "model.",
}


def language_model_of(config: PreTrainedConfig, name: str) -> tuple[PreTrainedConfig, Kind]:
    """The configuration of a language model, that inside a multimodal one if it is that; and its kind.

    Args:
        config: of a checkpoint.
        name: of the model, for messages.

    Raises:
        UserError: it has no language model of either kind, or one inside a quantised multimodal model.
    """
    architecture = (getattr(config, "architectures", None) or [""])[0]
    inside = getattr(config, "text_config", None)
    if architecture.endswith("ForConditionalGeneration") and type(inside) in MODEL_FOR_CAUSAL_LM_MAPPING:
        if getattr(config, "quantization_config", None):  # whose names are those of the whole
            raise UserError(
                f"--model_name {name}: a language model cannot be taken out of a quantised multimodal checkpoint; use "
                "the model as it was before, or a quantised language model"
            )
        inside.tie_word_embeddings = config.tie_word_embeddings
        return inside, "causal"
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
