"""A client of FedBPT with its data and its model.

torch and transformers take seconds to import, so that it is done when the model is loaded, which is when NVFlare knows
this process.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flaretune.config.options import as_dict, build
from flaretune.errors import UserError
from flaretune.methods.base import ClientContext
from flaretune.methods.client_data import load_data
from flaretune.methods.fedbpt.client import FedBPTClient, Labelled
from flaretune.methods.fedbpt.config import FedBPTConfig
from flaretune.methods.fedbpt.learned_client import LearnedFedBPTClient
from flaretune.model_server.client import PATIENCE, open_remote_model
from flaretune.model_server.token import token_of_environment
from flaretune.models.prompt_settings import PromptSettings

if TYPE_CHECKING:
    from flaretune.data.shares import ClientData
    from flaretune.model_server.client import RemotePromptedModel
    from flaretune.models.prompted import PromptedModel
    from flaretune.tasks.spec import TaskSpec


def open_client(config: FedBPTConfig, context: ClientContext) -> FedBPTClient:
    """Load data, and the model or find the model server that has it.

    Raises:
        UserError: whatever the user can correct.
    """
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
    """The model in this process, or that of a server, where this process needs neither torch nor weights."""
    settings = build(PromptSettings, as_dict(config))
    if config.model_server != "local":
        return open_remote_model(
            config.model_server,
            _token(config),
            spec,
            config.model_name,
            config.dtype,
            settings,
            patience=min(PATIENCE, config.model_server_timeout),
            answer_seconds=config.model_server_timeout,
        )
    # torch and transformers take seconds to import: only now that NVFlare knows this process
    from flaretune.models.prompted import open_prompted_model

    return open_prompted_model(
        spec,
        config.model_name,
        settings,
        dtype=config.dtype,
        device=config.device,
        batch_size=config.batch_size,
        cache_mb=config.cache_mb,
    )


def _token(config: FedBPTConfig) -> str:
    """The model server's token, which is read at the client and is no part of the job.

    Raises:
        UserError: what the reference names is not there.
    """
    if not config.model_server_token:
        return token_of_environment()
    from nvflare.fuel.utils.secret_utils import resolve_secret_refs

    try:
        return resolve_secret_refs(config.model_server_token)
    except ValueError as error:
        raise UserError(f"--model_server_token: {error}") from error


def _open_learned(config: FedBPTConfig, name: str, spec: TaskSpec, data: ClientData) -> LearnedFedBPTClient:
    """The model, asked for words and with a prompt in it."""
    from flaretune.methods.fedbpt.learned_model import open_learned_model

    settings = build(PromptSettings, as_dict(config))
    where = {name: getattr(config, name) for name in ("dtype", "device", "batch_size", "cache_mb")}
    model = open_learned_model(spec, config.model_name, settings, **where)
    vocabulary = model.words.vocabulary()
    asked, features = model.features(vocabulary.candidates)
    return LearnedFedBPTClient(
        config,
        name,
        spec,
        model.prompted.facts,
        list(model.words.templates),
        vocabulary,
        asked,
        features,
        model.prompted.black_box,
        model.texts(data.train.texts, data.train.labels),
        model.texts(data.validation.texts, data.validation.labels),
        None if data.test is None else model.texts(data.test.texts, data.test.labels, counts=False),
    )
