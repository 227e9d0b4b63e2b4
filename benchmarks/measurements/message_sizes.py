"""A round's messages through NVFlare's own serialiser: how many bytes they are, and how they are written and read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.decomposers import common_decomposers
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.fuel.utils import fobs

from flaretune.engine import codec
from flaretune.flare.transport import to_model
from flaretune.host import variable
from flaretune.methods.exchanged import FitRequest, FitResult
from flaretune.methods.fedbpt.distribution import CovarianceForm, Distribution, pack
from flaretune.seeding import derive_seed
from flaretune.tasks.evaluation import Counters, Evaluation

_CHUNKS = "NVFLARE_NP_DOWNLOAD_CHUNK_SIZE"


def fedbpt_round(dim: int, form: CovarianceForm, n_clients: int = 10) -> tuple[FLModel, FLModel]:
    """Fit task and reply of FedBPT at a client that also evaluates on test data: the most that any has to say.

    Args:
        dim: d.
        form: in which the covariance travels.
        n_clients: of the job, whose names the task lists.
    """
    rng = np.random.default_rng(derive_seed(1, "bench", "wire", dim))
    factor = rng.standard_normal((dim, dim))
    distribution = Distribution(rng.standard_normal(dim), 0.875, np.eye(dim) + factor @ factor.T / dim)
    request = FitRequest(1, pack(distribution, form), {}, evaluate=True)
    common = codec.task([f"site-{number}" for number in range(1, n_clients + 1)], "", 0, None)
    found = {
        "mean": rng.standard_normal(dim).astype(np.float32),
        "fitness": np.array([0.625]),
        "sigma_square_sum": np.array([7.5]),
    }
    counters = Counters(queries=41, example_forwards=1312, seconds=3.25, memory_mb=812.5)
    evaluation = Evaluation(np.array([20, 32]), 17.5, 32, np.array([71, 100]))
    result = FitResult(found, {"n_train": 32}, counters, evaluation)
    messages = tuple(map(to_model, (codec.fit_message(common, request), codec.fit_reply(result))))
    for message in messages:
        message.current_round, message.total_rounds = 3, 10
    return messages


def fedbpt_round_bytes(dim: int, form: CovarianceForm, n_clients: int = 10) -> tuple[int, int]:
    """Bytes down and up of `fedbpt_round`, without what NVFlare puts around a message when it sends it."""
    messages = fedbpt_round(dim, form, n_clients)
    with serialiser_of_a_job():
        down, up = (len(fobs.dumps(FLModelUtils.to_shareable(message))) for message in messages)
    return down, up


def write_and_read(messages: Sequence[FLModel]) -> list[FLModel]:
    """Messages as they arrive; to be called with `serialiser_of_a_job`."""
    return [FLModelUtils.from_shareable(fobs.loads(fobs.dumps(FLModelUtils.to_shareable(m)))) for m in messages]


@contextmanager
def serialiser_of_a_job() -> Iterator[None]:
    """Set up as FedBPT's jobs do, with arrays inside the message whatever their size."""
    flare_decomposers.register()
    common_decomposers.register()
    with variable(_CHUNKS, "0"):
        yield
