"""Bytes of a round's messages, as NVFlare's own serialiser makes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.decomposers import common_decomposers
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.fuel.utils import fobs

from flaretune.fedbpt.answers import SearchAnswer
from flaretune.fedbpt.distribution import CovarianceForm, Distribution
from flaretune.fedbpt.local_search import LocalResult
from flaretune.flare import fedbpt_messages
from flaretune.seeding import derive_seed
from flaretune.tasks.evaluation import Counters, Evaluation

_CHUNKS = "NVFLARE_NP_DOWNLOAD_CHUNK_SIZE"


def search_round_bytes(dim: int, form: CovarianceForm, n_sites: int = 10) -> tuple[int, int]:
    """A round of FedBPT at one client that also evaluates on test data, the most that any has to say.

    Args:
        dim: d.
        form: in which the covariance travels.
        n_sites: sites of the job, whose names the task lists.

    Returns:
        Bytes down and up, without what NVFlare puts around a message when it sends it.
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
    with _serialiser_of_a_job():
        return _n_bytes(task), _n_bytes(answer)


def _n_bytes(model: FLModel) -> int:
    model.current_round, model.total_rounds = 3, 10
    return len(fobs.dumps(FLModelUtils.to_shareable(model)))


@contextmanager
def _serialiser_of_a_job() -> Iterator[None]:
    """Set up as FedBPT's jobs do, with arrays inside the message whatever their size."""
    flare_decomposers.register()
    common_decomposers.register()
    before = os.environ.get(_CHUNKS)
    os.environ[_CHUNKS] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CHUNKS]
        else:
            os.environ[_CHUNKS] = before
