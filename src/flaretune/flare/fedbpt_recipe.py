"""FedBPT as an NVFlare recipe, for jobs written in Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flaretune.methods.fedbpt.config import FedBPTConfig, FedBPTServerConfig
from flaretune.config.job import CARRIED
from flaretune.config.options import as_dict
from flaretune.flare import fedbpt_messages, messages
from flaretune.flare.fedbpt_controller import FedBPTController
from flaretune.flare.recipe import FlaretuneRecipe


class FedBPTRecipe(FlaretuneRecipe):
    """A FedBPT job (see `FlaretuneRecipe`).

    Args:
        site_config: what every site is told.
        server_config: what the server is told.
        name: of the job.
        per_site: by site name, options of `FedBPTConfig` that differ there, such as ``data_path`` or ``device``.
            If given, the job is deployed to these sites only.
        code: whether the job carries flaretune's code.

    Raises:
        UserError: an option or a site's option is unknown or out of its range.

    Example:
        >>> from nvflare.recipe import SimEnv
        >>> recipe = FedBPTRecipe(
        ...     FedBPTConfig(task_file="my_task.toml", model_name="roberta-large"),
        ...     per_site={"hospital-a": {"data_path": "/data/a.csv"}, "hospital-b": {"data_path": "/data/b.csv"}},
        ... )
        >>> run = recipe.execute(SimEnv(clients=["hospital-a", "hospital-b"]))  # doctest: +SKIP
    """

    def __init__(
        self,
        site_config: FedBPTConfig,
        server_config: FedBPTServerConfig | None = None,
        *,
        name: str = "fedbpt",
        per_site: Mapping[str, Mapping[str, Any]] | None = None,
        code: str = CARRIED,
    ):
        controller = FedBPTController(**as_dict(server_config or FedBPTServerConfig()), seed=site_config.seed)
        tasks = (messages.SETUP, fedbpt_messages.SEARCH, messages.EVALUATE)
        super().__init__(site_config, controller, tasks, name=name, per_site=per_site, code=code)
