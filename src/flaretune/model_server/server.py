"""The model server: LitServe around `Worker`, one worker process for each device.

LitServe brings HTTP, queues and processes per device, in a package of 0.1 MB on FastAPI and uvicorn; Ray Serve would
bring a cluster of its own.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import Header, HTTPException
from litserve import LitAPI, LitServer
from starlette.responses import Response
from urllib3.exceptions import InsecureRequestWarning

from flaretune.config.model_server import LOOPBACK, PARENT_VARIABLE, ServiceConfig
from flaretune.errors import UserError
from flaretune.host import no_garbage_collection
from flaretune.model_server.client import is_ready
from flaretune.model_server.protocol import QUERY_PATH, read_query


class QueryAPI(LitAPI):
    """What LitServe calls, in its HTTP process (`authorize`) and in each worker (the rest).

    Args:
        devices: of all workers, as torch names them.
    """

    def __init__(self, config: ServiceConfig, token: str, devices: Sequence[str]):
        super().__init__(api_path=QUERY_PATH, enable_async=True)
        self._config = config
        self._token = token
        self._devices = devices

    def authorize(self, authorization: str = Header(default="")) -> None:
        """Refuse who does not bring the token."""
        if not hmac.compare_digest(authorization.encode(), f"Bearer {self._token}".encode()):
            raise HTTPException(401, "the token is missing or wrong")

    @no_garbage_collection()
    def setup(self, device: str) -> None:
        """Load the model, in a worker."""
        import torch

        from flaretune.model_server.worker import Worker
        from flaretune.models.device import resolve_dtype
        from flaretune.models.load import load_pretrained

        end_with_parent()
        config = self._config
        try:
            # the same in all workers, whichever of them replies
            dtype = resolve_dtype(config.dtype, *map(torch.device, self._devices))
            pretrained = load_pretrained(config.model_name, dtype, device, config.quantize)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            logging.getLogger("litserve").setLevel(logging.CRITICAL)  # which would add its traceback
            raise
        self._worker = Worker(pretrained, config.batch_size, config.cache_mb)
        # LitServe waits for the next request in one of these threads too, so that what they have no time for stays in
        # its queue, where it ends after --model_server_timeout; one more reads a query while the others' passes run
        self._threads = ThreadPoolExecutor(self._worker.lanes.count + 2, "query")

    # LitServe reads the annotations of these: without any, a request's body is JSON and a response what is returned
    async def decode_request(self, request):
        """A message as it came: it is read in a thread."""
        return request

    async def predict(self, message: Any) -> Any:
        """Reply to one message, while others wait for their passes."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(self._threads)
        return await loop.run_in_executor(self._threads, self._reply, message)

    async def encode_response(self, output):
        """An HTTP response, with the reply's status."""
        status, body = output
        return Response(body, status, media_type="application/json")

    def _reply(self, message: Any) -> tuple[int, str]:
        """Status and JSON; logits that are no numbers are for the client to judge."""
        from flaretune.model_server.worker import BAD_REQUEST, Reply

        try:
            reply = self._worker.reply(read_query(message))
        except ValueError as error:
            reply = Reply(BAD_REQUEST, {"error": f"the message cannot be read: {error}"})
        return reply.status, json.dumps(reply.body, allow_nan=True)


def end_with_parent() -> None:
    """Let this process end when its parent has ended, killed perhaps, so that nobody is left behind with a model."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def find_devices(device: str) -> list[str]:
    """What `--device` stands for here, as torch names it: ``cpu``, or ``cuda:0`` and so on."""
    if device == "auto":
        return [f"cuda:{number}" for number in range(count_gpus())] or ["cpu"]
    return ["cpu"] if device == "cpu" else [f"cuda:{number}" for number in re.findall(r"\d+", device) or [0]]


def count_gpus() -> int:
    """Those that torch finds, by a process of its own: this one holds none, and needs no torch."""
    command = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def serve(config: ServiceConfig, token: str) -> int:
    """Run the model server until it is told to stop (SIGTERM, Ctrl-C); returns the exit status."""
    told_to_stop = False

    def stop(signum: int, frame: Any) -> None:
        nonlocal told_to_stop
        told_to_stop = True
        logging.getLogger("litserve").setLevel(logging.CRITICAL)  # 0.2.19 would have errors to tell of its own end
        raise KeyboardInterrupt  # LitServe ends well when it sees one, without saying that it did

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if os.environ.get(PARENT_VARIABLE) == str(os.getppid()):
        end_with_parent()
    os.register_at_fork(after_in_child=end_with_parent)  # LitServe's manager, which would keep the port
    devices = find_devices(config.device)
    on_gpus = devices != ["cpu"]
    server = LitServer(
        QueryAPI(config, token, devices),
        accelerator="cuda" if on_gpus else "cpu",
        devices=[int(device.removeprefix("cuda:")) for device in devices] if on_gpus else 1,
        timeout=config.model_server_timeout,
        max_payload_size=int(config.max_mb * 2**20),
        disable_openapi_url=True,
    )
    tls = {"ssl_certfile": config.ssl_certfile} if config.ssl_certfile else {}
    threading.Thread(target=_say_when_ready, args=(config, token, devices), daemon=True).start()
    reason = "a worker has ended, killed perhaps for lack of memory"
    try:
        server.run(
            host=config.host,
            port=config.port,
            num_api_servers=1,
            api_server_worker_type="thread",  # so that a killed server leaves nobody behind who keeps the port
            log_level="warning",
            generate_client_file=False,
            **tls,
        )
    except KeyboardInterrupt:  # before the workers were ready
        pass
    except SystemExit:  # of uvicorn, which has said why
        reason = f"port {config.port} of {config.host} cannot be listened at; choose another with --port"
    except Exception as error:  # LitServe raises whatever its queues raise when a worker has ended
        reason = f"{reason} ({str(error) or type(error).__name__})"
    finally:
        for process in multiprocessing.active_children():
            process.kill()
    if told_to_stop:
        return 0
    print(f"error: {reason}", file=sys.stderr, flush=True)
    return 1


def _say_when_ready(config: ServiceConfig, token: str, devices: Sequence[str]) -> None:
    url = f"{'https' if config.ssl_certfile else 'http'}://{LOOPBACK}:{config.port}"
    warnings.simplefilter(
        "ignore", InsecureRequestWarning
    )  # it looks at itself, by another name than its certificate's
    while not is_ready(url, token, verify=False):
        time.sleep(0.2)
    print(f"{config.model_name} answers at {url}, on {', '.join(devices)}", flush=True)
