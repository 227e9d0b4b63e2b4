"""What server and sites say to each other in a FedBPT job, besides what `messages` has.

``search``: the server sends its search distribution, a site counts right answers of its mean and answers with
these and with where its own search ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel

from flaretune.flare.messages import (
    Task,
    check_few_shots,
    counter_fields,
    evaluation_arrays,
    message,
    read_array,
    read_counters,
    read_evaluation,
    read_flag,
    read_meta,
    read_natural,
    read_number,
    reader,
)
from flaretune.methods.fedbpt import distribution as wire
from flaretune.methods.fedbpt.answers import SearchAnswer
from flaretune.methods.fedbpt.distribution import Distribution
from flaretune.methods.fedbpt.local_search import LocalResult
from flaretune.tasks.evaluation import HUGE, Counters

SEARCH = "search"
FLOAT32_ERROR = 1e-6  # relative, of a mean as it travels


def search_task(
    sites: list[str],
    distribution: Distribution,
    form: str,
    round_number: int,
    evaluate: bool,
    norm_limit: float | None = None,
) -> FLModel:
    """Where to search from, whether to evaluate its mean on the way, and how long a searched vector may be."""
    fields = {"sites": sites, "round": round_number, "evaluate": evaluate}
    if norm_limit is not None:
        fields["norm_limit"] = float(norm_limit)
    return message(wire.pack(distribution, form), fields)


@reader
def read_search_task(model: FLModel) -> tuple[Distribution, int, bool, float | None]:
    meta = read_meta(model)
    norm_limit = read_number(meta, "norm_limit") if "norm_limit" in meta else None
    if norm_limit is not None and norm_limit <= 0:
        raise ValueError(f"'norm_limit' is {norm_limit:g}, expected a positive number")
    return wire.unpack(model.params), read_natural(meta, "round"), read_flag(meta, "evaluate"), norm_limit


def search_answer(answer: SearchAnswer) -> FLModel:
    result = answer.result
    params = {
        "mean": result.mean.astype(np.float32),
        "fitness": np.array([result.fitness], dtype=np.float64),
        "sigma_square_sum": np.array([result.sigma_square_sum], dtype=np.float64),
    }
    if answer.evaluation is not None:
        params |= evaluation_arrays(answer.evaluation)
    return message(params, {"n_train": answer.n_train, **counter_fields(answer.counters)})


@reader
def read_search_answer(
    model: FLModel,
    dim: int,
    task: Task | None,
    fitness_range: tuple[float, float] = (-HUGE, HUGE),
    settings: Mapping[str, Any] | None = None,
) -> SearchAnswer:
    """Read a site's search result.

    Args:
        model: the message.
        dim: d.
        task: of the settings, where an evaluation was asked for; None where it was not.
        fitness_range: the least and the greatest value that the loss can have.
        settings: what the sites agree on, from which the number of questions and the bound of a mean follow; None to
            take any.

    Raises:
        ValueError: a field is missing, of another shape than it must have, not finite, or out of its range.
    """
    meta = read_meta(model)
    mean = read_array(model.params, "mean", (dim,)).astype(np.float64)
    fitness = float(read_array(model.params, "fitness", (1,))[0])
    square_sum = float(read_array(model.params, "sigma_square_sum", (1,))[0])
    low, high = fitness_range
    if not low <= fitness <= high:
        raise ValueError(f"'fitness' is {fitness:g}, which the loss cannot be: it lies between {low:g} and {high:g}")
    if not 0 < square_sum <= HUGE:
        raise ValueError(f"'sigma_square_sum' is {square_sum:g}, expected a positive number")
    counters, n_train = read_counters(meta), read_natural(meta, "n_train")
    if settings is not None:
        _check_work(counters, n_train, settings)
        bound, farthest = settings["options"]["bound"], float(np.abs(mean).max())
        if 0 < bound * (1 + FLOAT32_ERROR) < farthest:
            raise ValueError(f"'mean' has a number of size {farthest:g}, beyond --bound {bound:g}")
    evaluation = None if task is None else read_evaluation(model.params, task)
    result = LocalResult(mean, fitness, square_sum, counters.queries)
    return SearchAnswer(result, n_train, counters, evaluation)


def _check_work(counters: Counters, n_train: int, settings: Mapping[str, Any]) -> None:
    """Check that a site has done what its settings say: I generations of λ candidates, and their mean."""
    check_few_shots(settings, n_train=n_train)
    options = settings["options"]
    queries = options["local_iter"] * settings["popsize"] + 1
    forwards = queries * n_train * (2 if options["perturb"] else 1)
    for name, expected in (("queries", queries), ("example_forwards", forwards)):
        if getattr(counters, name) != expected:
            raise ValueError(f"{name!r} is {getattr(counters, name)}, and {expected} follows from the settings")


def evaluate_task(sites: list[str], point: np.ndarray) -> FLModel:
    return message({"point": np.asarray(point, dtype=np.float32)}, {"sites": sites})


@reader
def read_evaluate_task(model: FLModel) -> np.ndarray:
    read_meta(model)
    return read_array(model.params, "point", (np.size(model.params["point"]),)).astype(np.float64)
