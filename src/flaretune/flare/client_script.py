"""What the clients' scripts of all methods do: options in, then a loop over the server's tasks until the job ends."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path

from flaretune.config.client import ClientConfig
from flaretune.config.client_flags import read_client_config
from flaretune.engine.errors import Failure, record_failure
from flaretune.errors import UserError, lack_of_memory, lack_of_package
from flaretune.host import replace_unprintable
from flaretune.methods.base import Method
from flaretune.methods.registry import METHODS, find_method
from flaretune.versions import untested

log = logging.getLogger("flaretune.client")

# The client's own workspace, above the folder of the job that a script starts in: what lies there outlives a job.
WORKSPACE = Path("..", "..")
STATES = Path("flaretune_state")  # what a client keeps with the job
RUNS = WORKSPACE / "flaretune_runs"  # and of runs that outlive it
OWN_OPTIONS = WORKSPACE / "local" / "flaretune.toml"  # beside the client's other NVFlare settings
FAILURES = Path("flaretune")  # folder of what went wrong here
APP = "app_"  # what NVFlare puts before a client's name for the folder that its script starts in


def main(method: str, argv: Sequence[str] | None = None) -> None:
    """Run a client's script: never returns, exits with 0 at the end of the job and with 1 after one clear sentence.

    `os._exit` because NVFlare's threads would keep the process of a failed script alive until the server's
    heartbeat timeout.
    """
    replace_unprintable()
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("flaretune").setLevel(logging.INFO)
    sentence, status, said = "", 1, io.StringIO()
    try:
        configs = [m.client_config for m in METHODS.values()]
        argv = sys.argv[1:] if argv is None else argv
        with redirect_stderr(said):
            config, sentences = read_client_config(find_method(method).client_config, argv, OWN_OPTIONS, configs)
        for one in filter(None, [untested(), *sentences]):
            log.warning(one)
        _serve(find_method(method), config)
        status = 0
    except (UserError, FloatingPointError) as error:
        sentence = str(error)
    except SystemExit as error:  # argparse's; what is wrong stands in its last line
        status = error.code if isinstance(error.code, int) else 1
        sentence = said.getvalue().strip().rpartition("\n")[2].partition("error: ")[2] if status else ""
    except BaseException as error:
        lacking = lack_of_memory(error) or lack_of_package(error)
        sentence = lacking or f"unexpected {type(error).__name__}: {error}"
        if not lacking:
            log.error("%s", traceback.format_exc())
    if sentence:
        log.error("%s", sentence)
        if (folder := Path.cwd().name).startswith(APP):  # of a job; who tries a script by hand wants no file
            record_failure(FAILURES, Failure(folder.removeprefix(APP), sentence))
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _serve(method: Method, config: ClientConfig) -> None:
    """Reply to the server's tasks until the job ends."""
    if config.inline_arrays:  # a download would block this client for minutes if the server gave up waiting
        os.environ.setdefault("NVFLARE_NP_DOWNLOAD_CHUNK_SIZE", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import nvflare.client as flare

    from flaretune.engine.worker import Worker
    from flaretune.flare.transport import from_model, to_model

    flare.init()
    worker = Worker(method, config, flare.get_site_name(), STATES, RUNS)
    while flare.is_running():
        received = flare.receive()
        if received is None:
            break
        flare.send(to_model(worker(flare.get_task_name(), from_model(received))))
