"""The NVFlare controller of every method: it gives the round loop a transport, and tells of its rounds."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from nvflare.apis.analytix import AnalyticsDataType
from nvflare.apis.utils.analytix_utils import create_analytic_dxo, send_analytic_dxo
from nvflare.app_common.workflows.model_controller import ModelController

from flaretune.config.old_names import renew
from flaretune.config.options import split_options
from flaretune.engine.errors import SERVER, Failure, JobFailed, record_failure
from flaretune.engine.progress import TOPIC
from flaretune.engine.records import RoundRecord, scalars
from flaretune.engine.results import RESULTS
from flaretune.engine.rounds import Job
from flaretune.engine.transport import Aborted
from flaretune.errors import UserError
from flaretune.flare.fixes import simulator
from flaretune.flare.transport import NVFlareTransport
from flaretune.methods.registry import find_method

log = logging.getLogger("flaretune.server")


class FlaretuneController(ModelController):
    """Runs a job of a method on the server.

    NVFlare's own `FedAvg` adds results up as they arrive, so that equal seeds need not give equal bits, and takes every
    result that it can add; here replies are checked first.

    Args:
        options: the server's options, those of the method's `server_config`.
        more: the same one by one, as job templates have them.

    Raises:
        UserError: there is no such method or option, or a value is out of its range.
    """

    def __init__(self, method: str, options: dict[str, Any] | None = None, **more: Any):
        super().__init__(persistor_id="", ignore_result_error=True)
        self.method = method  # an export finds what has the name of an argument
        self.options = {**(options or {}), **more}
        self._method = find_method(method)
        options, sentences = renew(self.options, self._method.server_config)
        for sentence in sentences:
            log.warning(sentence)
        [self._config] = split_options(options, self._method.server_config)

    def run(self) -> None:
        """Run the job; what ends it early is recorded among the results and told in one sentence."""
        simulator.give_each_thread_its_own_names()
        simulator.find_ports_without_listening()
        simulator.let_readers_leave()
        folder = Path(self.get_run_dir()) / RESULTS
        try:
            job = Job(self._method, self._config, NVFlareTransport(self), folder, self._show)
            self.engine.register_app_command(TOPIC, job.progress.tell)
            job.run()
        except Aborted:
            log.info("the job was ended")
        except (JobFailed, UserError) as error:
            record_failure(folder, Failure(SERVER, str(error)))
            self.panic(str(error))

    def _show(self, record: RoundRecord) -> None:
        """Tell a round's numbers to TensorBoard or whatever receives analytics on the server."""
        with self.engine.new_context() as fl_ctx:
            for tag, value in scalars(record).items():
                dxo = create_analytic_dxo(tag, value, AnalyticsDataType.SCALAR, global_step=record.round)
                send_analytic_dxo(self, dxo, fl_ctx)
