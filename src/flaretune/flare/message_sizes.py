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

from flaretune.flare import fedbpt_messages
from flaretune.flare.environment import variable
from flaretune.methods.fedbpt.answers import SearchAnswer
from flaretune.methods.fedbpt.distribution import CovarianceForm, Distribution
from flaretune.methods.fedbpt.local_search import LocalResult
from flaretune.seeding import derive_seed
from flaretune.tasks.evaluation import Counters, Evaluation

_CHUNKS = "NVFLARE_NP_DOWNLOAD_CHUNK_SIZE"


def search_round(dim: int, form: CovarianceForm, n_sites: int = 10) -> tuple[FLModel, FLModel]:
    """Task and answer of a round of FedBPT at a client that also evaluates on test data: the most that any has to say.

    Args:
        dim: d.
        form: in which the covariance travels.
        n_sites: sites of the job, whose names the task lists.
    """
    rng = np.random.default_rng(derive_seed(1, "bench", "wire", dim))
    factor = rng.standard_normal((dim, dim))
    distribution = Distribution(rng.standard_normal(dim), 0.875, np.eye(dim) + factor @ factor.T / dim)
    sites = [f"site-{number}" for number in range(1, n_sites + 1)]
    counters = Counters(queries=41, example_forwards=1312, seconds=3.25, memory_mb=812.5)
    evaluation = Evaluation(np.array([20, 32]), 17.5, 32, np.array([71, 100]))
    result = LocalResult(rng.standard_normal(dim), 0.625, 7.5, 41)
    task = fedbpt_messages.search_task(sites, distribution, form, round_number=1, evaluate=True)
    answer = fedbpt_messages.search_answer(SearchAnswer(result, 32, counters, evaluation))
    for message in (task, answer):
        message.current_round, message.total_rounds = 3, 10
    return task, answer


def search_round_bytes(dim: int, form: CovarianceForm, n_sites: int = 10) -> tuple[int, int]:
    """Bytes down and up of `search_round`, without what NVFlare puts around a message when it sends it."""
    with serialiser_of_a_job():
        down, up = (len(fobs.dumps(FLModelUtils.to_shareable(message))) for message in search_round(dim, form, n_sites))
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
