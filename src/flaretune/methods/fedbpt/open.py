"""A client of FedBPT with its data and its model.

torch and transformers take seconds to import, so that it is done when the model is loaded, which is when NVFlare knows
this process.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from flaretune.config.options import as_dict, build
from flaretune.config.served_model import LOCAL
from flaretune.methods.base import ClientContext
from flaretune.methods.client_data import Labelled, load_data
from flaretune.methods.fedbpt.client import FedBPTClient
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.fedbpt.learned_client import LearnedFedBPTClient
from flaretune.methods.served_model import patience_of, token_of, vllm_server
from flaretune.model_server.client import open_remote_model
from flaretune.models.prompt_settings import PromptSettings

if TYPE_CHECKING:
    from flaretune.data.shares import ClientData
    from flaretune.model_server.client import RemotePromptedModel
    from flaretune.models.prompted import PromptedModel
    from flaretune.tasks.spec import TaskSpec


def open_client(config: FedBPTConfig, context: ClientContext) -> FedBPTClient:
    """See `Method.client`."""
    spec, data = load_data(config, context)
    if config.verbalizer == "learned":
        return _open_learned(config, context.name, spec, data)
    prompted = _open_model(config, spec)
    return FedBPTClient(
        config,
        context.name,
        spec,
        prompted.facts,
        prompted.black_box,
        Labelled(prompted.register(data.train), data.train.labels),
        Labelled(prompted.register(data.validation), data.validation.labels),
        None if data.test is None else Labelled(prompted.register(data.test), data.test.labels),
        partial(prompted.register_perturbed, data.train, config.perturb_rate),
        lambda: prompted.zero_shot_logits(data.test),
    )


def _open_model(config: FedBPTConfig, spec: TaskSpec) -> PromptedModel | RemotePromptedModel:
    """The model in this process, or that of a server, where this process needs no weights, or word embeddings alone."""
    settings = build(PromptSettings, as_dict(config))
    if config.uses_vllm:
        from flaretune.model_server.vllm_models import open_outline, open_vllm_model

        server = vllm_server(config)
        return open_vllm_model(server, *open_outline(server, config.model_name, config.dtype), spec, settings)
    if config.model_server != LOCAL:
        about, more = (spec, config.model_name, config.dtype, settings), {"quantize": config.quantize}
        return open_remote_model(config.model_server, token_of(config), *about, **more, **patience_of(config))
    from flaretune.models.prompted import open_prompted_model

    return open_prompted_model(spec, config.model_name, settings, **_place(config))


def _place(config: FedBPTConfig) -> dict[str, Any]:
    """How a model is run in this process."""
    return {name: getattr(config, name) for name in ("dtype", "device", "batch_size", "cache_mb", "quantize")}


def _open_learned(config: FedBPTConfig, name: str, spec: TaskSpec, data: ClientData) -> LearnedFedBPTClient:
    """The model, asked for words and with a prompt in it."""
    from flaretune.methods.fedbpt.learned_model import open_learned_model, open_learned_vllm

    settings = build(PromptSettings, as_dict(config))
    if config.uses_vllm:
        model = open_learned_vllm(vllm_server(config), spec, config.model_name, config.dtype, settings)
    else:
        model = open_learned_model(spec, config.model_name, settings, **_place(config))
    return LearnedFedBPTClient(config, name, model, data)
