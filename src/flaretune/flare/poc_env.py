"""NVFlare's proof of concept, started on a busy machine."""

from __future__ import annotations

import time

from nvflare.apis.fl_exception import FLCommunicationError
from nvflare.fuel.flare_api.api_spec import NoConnection
from nvflare.job_config.api import FedJob
from nvflare.recipe import PocEnv

TRIES, PAUSE = 15, 2.0  # how often its server is asked, and seconds in between


class PatientPocEnv(PocEnv):
    """A `PocEnv` that asks its server again while it is starting; NVFlare's asks once and waits two seconds."""

    def deploy(self, job: FedJob) -> str:
        """Start the federation and submit the job.

        Raises:
            RuntimeError: its server does not answer; all of it has been stopped.
        """
        try:
            return super().deploy(job)
        except (FLCommunicationError, NoConnection) as error:
            said: Exception = error
        for _ in range(TRIES):
            time.sleep(PAUSE)
            try:
                return self._get_session_manager().submit_job(job)
            except (FLCommunicationError, NoConnection) as error:
                said = error
        self.stop(clean_up=True)
        raise RuntimeError(f"the proof of concept's server does not answer ({said})")
