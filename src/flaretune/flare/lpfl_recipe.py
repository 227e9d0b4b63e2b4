"""LP-FL as an NVFlare recipe, for jobs written in Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaretune.config.job import CARRIED
from flaretune.config.options import as_dict, changed
from flaretune.flare import lpfl_messages, messages
from flaretune.flare.lpfl_controller import LPFLController
from flaretune.flare.recipe import FlaretuneRecipe
from flaretune.methods.lpfl.config import LPFLConfig, LPFLServerConfig


class LPFLRecipe(FlaretuneRecipe):
    """An LP-FL job (see `FlaretuneRecipe`).

    Args:
        site_config: what every site is told.
        server_config: what the server is told.
        name: of the job.
        per_site: by site name, options of `LPFLConfig` that differ there, such as ``data_path`` or ``device``.
            If given, the job is deployed to these sites only.
        code: whether the job carries flaretune's code.

    Raises:
        UserError: an option or a site's option is unknown or out of its range.

    Example:
        >>> from nvflare.recipe import SimEnv
        >>> recipe = LPFLRecipe(
        ...     LPFLConfig(task_file="my_task.toml", model_name="roberta-large", unlabelled=200),
        ...     per_site={"hospital-a": {"data_path": "/data/a.csv"}, "hospital-b": {"data_path": "/data/b.csv"}},
        ... )
        >>> run = recipe.execute(SimEnv(clients=["hospital-a", "hospital-b"]))  # doctest: +SKIP
    """

    def __init__(
        self,
        site_config: LPFLConfig,
        server_config: LPFLServerConfig | None = None,
        *,
        name: str = "lpfl",
        per_site: Mapping[str, Mapping[str, Any]] | None = None,
        code: str = CARRIED,
    ):
        server_config = server_config or LPFLServerConfig()
        if server_config.init_adapter and Path(server_config.init_adapter).exists():  # on this machine, as in SimEnv
            server_config = changed(server_config, init_adapter=str(Path(server_config.init_adapter).absolute()))
        controller = LPFLController(**as_dict(server_config))
        tasks = (messages.SETUP, lpfl_messages.TRAIN, messages.EVALUATE)
        super().__init__(site_config, controller, tasks, name=name, per_site=per_site, code=code)
