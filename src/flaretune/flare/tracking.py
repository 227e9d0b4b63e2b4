"""A run's numbers in MLflow or Weights & Biases, by NVFlare's receivers for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from nvflare.apis.fl_constant import ProcessType, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.widgets.streaming import AnalyticsReceiver

from flaretune.engine.errors import SERVER, Failure, record_failure
from flaretune.engine.results import RESULTS
from flaretune.errors import UserError

PROJECT = "flaretune"


class RunTracking(AnalyticsReceiver):
    """Keeps what the server tells of each round as one run of a tracker.

    NVFlare's receivers start a run for every client and know none for the server, whose numbers these are; hence this
    component around them. Keys and passwords are not the job's: MLflow and wandb read them from the environment of the
    server's process (``MLFLOW_TRACKING_TOKEN``, ``WANDB_API_KEY``).

    Args:
        tracker: ``mlflow`` or ``wandb``.
        uri: of the tracker's server; empty for files in the job's results: ``mlflow.db``, or a folder ``wandb`` for
            ``wandb sync``.
    """

    def __init__(self, tracker: str, uri: str = ""):
        super().__init__()
        self.tracker = tracker
        self.uri = uri

    def initialize(self, fl_ctx: FLContext) -> None:
        """Start the run.

        Raises:
            UserError: the tracker is unknown, not installed here, or cannot be reached; it is recorded among the
                results, and the job goes on without.
        """
        results = Path(fl_ctx.get_workspace().get_run_dir(fl_ctx.get_job_id())) / RESULTS
        results.mkdir(parents=True, exist_ok=True)
        try:
            self._start(results, fl_ctx)
        except UserError as error:
            record_failure(results, Failure(SERVER, str(error)))
            raise

    def _start(self, results: Path, fl_ctx: FLContext) -> None:
        check_tracker(self.tracker)
        self._receiver = TRACKERS[self.tracker](self.uri, results, fl_ctx.get_job_id())
        # In a client's process the receivers track that process alone: what is wanted here of the server.
        own = fl_ctx.clone()
        own.put(ReservedKey.PROCESS_TYPE, ProcessType.CLIENT_JOB, private=True, sticky=False)
        try:
            self._receiver.initialize(own)
        except Exception as error:  # whatever the tracker's package makes of an address or a full disk
            raise UserError(f"tracking {self.tracker!r} cannot start ({error}); the run goes on without") from error

    def save(self, fl_ctx: FLContext, shareable: Shareable, record_origin: str) -> None:
        """Keep one number."""
        self._receiver.save(fl_ctx, shareable, record_origin)

    def finalize(self, fl_ctx: FLContext) -> None:
        """End the run."""
        self._receiver.finalize(fl_ctx)


def check_tracker(name: str) -> None:
    """Raise a UserError if there is no such tracker, or if it is not installed."""
    if name not in TRACKERS:
        raise UserError(f"tracking {name!r}: there are {', '.join(TRACKERS)}")
    if find_spec(name) is None:
        raise UserError(f"tracking {name!r} needs a package that is not installed here: pip install {name}")


def _mlflow(uri: str, results: Path, job_id: str) -> AnalyticsReceiver:
    from nvflare.app_opt.tracking.mlflow.mlflow_receiver import MLflowReceiver

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # its own 7, each twice as late, would hold rounds up
    return MLflowReceiver(
        tracking_uri=uri or f"sqlite:///{results / 'mlflow.db'}",
        kw_args={"experiment_name": PROJECT, "run_name": PROJECT, "experiment_tags": {}, "run_tags": {}},
    )


def _wandb(uri: str, results: Path, job_id: str) -> AnalyticsReceiver:
    from nvflare.app_opt.tracking.wandb.wandb_receiver import WandBReceiver

    if uri:
        os.environ["WANDB_BASE_URL"] = uri
    about = {"project": PROJECT, "group": job_id, "job_type": "server", "name": PROJECT, "dir": str(results)}
    online = uri or os.environ.get("WANDB_API_KEY")
    return WandBReceiver(wandb_args=about, mode="online" if online else "offline")


TRACKERS: dict[str, Callable[[str, Path, str], AnalyticsReceiver]] = {"mlflow": _mlflow, "wandb": _wandb}
