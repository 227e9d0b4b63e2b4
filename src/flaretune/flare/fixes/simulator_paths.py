"""Paths for NVFlare 2.9's simulator, which makes commands of them as one text, and parts that at blanks.

The simulator's own command and those of its clients name the workspace, the logging's configuration and Python. While
it runs, those with a blank, a quote or a # in them get other names: links in a temporary folder.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from nvflare.recipe import SimEnv

from flaretune.errors import UserError


@contextmanager
def plain_paths(env: SimEnv) -> Iterator[None]:
    """While this lasts, paths of the environment, and Python's, are such as the simulator can take.

    Raises:
        UserError: the folder of temporary files has no such path either.
    """
    before = env.workspace_root, env.log_config, sys.executable
    if all(_is_plain(path) for path in before):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="flaretune-") as folder:
        if not _is_plain(folder):
            raise UserError(
                f"the folder for temporary files, {tempfile.gettempdir()!r}, must have a path without blanks, quotes "
                "and # for NVFlare's simulator; set TMPDIR to one"
            )
        Path(env.workspace_root).mkdir(parents=True, exist_ok=True)
        python = Path(sys.executable)
        environment = _link(python.parents[1], Path(folder, "python"))
        try:
            env.workspace_root = str(_link(Path(env.workspace_root), Path(folder, "workspace")))
            if env.log_config and Path(env.log_config).is_file():  # or the name of one of NVFlare's own
                env.log_config = str(_link(Path(env.log_config), Path(folder, "log_config.json")))
            sys.executable = str(environment.joinpath(*python.parts[-2:]))
            yield
        finally:
            env.workspace_root, env.log_config, sys.executable = before


def _is_plain(path: str | None) -> bool:
    return not path or quote(path) == path


def _link(path: Path, link: Path) -> Path:
    link.symlink_to(path.absolute())
    return link
