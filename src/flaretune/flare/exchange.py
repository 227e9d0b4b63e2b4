"""What server and sites say to each other in a FedBPT job, field by field, and the checks on receipt.

Three tasks. ``setup``: the server names the sites, a site loads model and data and tells its settings.
``search``: the server sends its search distribution, a site counts right answers of its mean and answers with
these and with where its own search ended. ``evaluate``: the same counts alone, for the mean after the last round.
Arrays travel in ``FLModel.params``; names, settings and counters in ``FLModel.meta["flaretune"]``. Nothing
is pickled, and no text, token, label or number of a single example leaves a site.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel

from flaretune.fedbpt import distribution as wire
from flaretune.fedbpt.answers import Counters, EvaluateAnswer, Evaluation, SearchAnswer, SetupAnswer
from flaretune.fedbpt.distribution import Distribution
from flaretune.fedbpt.local_search import LocalResult

SCHEMA = 1
SETUP, SEARCH, EVALUATE = "setup", "search", "evaluate"
_META = "flaretune"


# ---- server to site ----


def setup_task(sites: list[str]) -> FLModel:
    """Names of the sites of the job, in the order of their shares of a common data set."""
    return _message({}, {"sites": sites})


def read_sites(model: FLModel) -> list[str]:
    """The sites that any task names: a process that was started anew sets up from any of them."""
    return [str(site) for site in _meta(model)["sites"]]


def search_task(sites: list[str], distribution: Distribution, form: str, round_number: int, evaluate: bool) -> FLModel:
    """Where to search from, and whether to evaluate its mean on the way."""
    fields = {"sites": sites, "round": round_number, "evaluate": evaluate}
    return _message(wire.pack(distribution, form), fields)


def read_search_task(model: FLModel) -> tuple[Distribution, int, bool]:
    meta = _meta(model)
    return wire.unpack(model.params), int(meta["round"]), bool(meta["evaluate"])


def evaluate_task(sites: list[str], point: np.ndarray) -> FLModel:
    return _message({"point": np.asarray(point, dtype=np.float32)}, {"sites": sites})


def read_evaluate_task(model: FLModel) -> np.ndarray:
    _meta(model)
    return np.asarray(model.params["point"], dtype=np.float64)


# ---- site to server ----


def setup_answer(answer: SetupAnswer) -> FLModel:
    params = _evaluation_arrays(answer.evaluation)
    if answer.zero_shot is not None:
        params["zero_shot"] = answer.zero_shot
    return _message(
        params, {"settings": answer.settings, "n_train": answer.n_train, **_counter_fields(answer.counters)}
    )


def read_setup_answer(model: FLModel) -> SetupAnswer:
    meta = _meta(model)
    settings = meta.get("settings")
    if not isinstance(settings, dict):
        raise ValueError("'settings' is missing")
    n_counts = len(np.atleast_1d(model.params.get("dev")))  # the metric's, which the settings name
    zero_shot = _counts(model.params, "zero_shot", n_counts) if "zero_shot" in model.params else None
    evaluation = _evaluation(model.params, n_counts)
    return SetupAnswer(settings, _natural(meta, "n_train"), zero_shot, evaluation, _counters(meta))


def search_answer(answer: SearchAnswer) -> FLModel:
    result = answer.result
    params = {
        "mean": result.mean.astype(np.float32),
        "fitness": np.array([result.fitness], dtype=np.float64),
        "sigma_square_sum": np.array([result.sigma_square_sum], dtype=np.float64),
    }
    if answer.evaluation is not None:
        params |= _evaluation_arrays(answer.evaluation)
    return _message(params, {"n_train": answer.n_train, **_counter_fields(answer.counters)})


def read_search_answer(model: FLModel, dim: int, n_counts: int | None) -> SearchAnswer:
    """Read a site's search result.

    Args:
        model: the message.
        dim: d.
        n_counts: how many counts the metric has, where an evaluation was asked for; None where it was not.

    Raises:
        ValueError: a field is missing, of another shape than it must have, or not finite.
    """
    meta = _meta(model)
    mean = _array(model.params, "mean", (dim,)).astype(np.float64)
    fitness = float(_array(model.params, "fitness", (1,))[0])
    square_sum = float(_array(model.params, "sigma_square_sum", (1,))[0])
    if square_sum <= 0:
        raise ValueError(f"'sigma_square_sum' is {square_sum:g}, expected a positive number")
    counters = _counters(meta)
    evaluation = None if n_counts is None else _evaluation(model.params, n_counts)
    result = LocalResult(mean, fitness, square_sum, counters.queries)
    return SearchAnswer(result, _natural(meta, "n_train"), counters, evaluation)


def evaluate_answer(answer: EvaluateAnswer) -> FLModel:
    return _message(_evaluation_arrays(answer.evaluation), _counter_fields(answer.counters))


def read_evaluate_answer(model: FLModel, n_counts: int) -> EvaluateAnswer:
    return EvaluateAnswer(_evaluation(model.params, n_counts), _counters(_meta(model)))


# ---- fields ----


def _message(params: dict[str, Any], fields: dict[str, Any]) -> FLModel:
    return FLModel(params=params, meta={_META: {"schema": SCHEMA, **fields}})


def _meta(model: FLModel) -> Mapping[str, Any]:
    meta = (model.meta or {}).get(_META)
    if not isinstance(meta, Mapping):
        raise ValueError("the message has no 'flaretune' field: is the other side running flaretune?")
    if meta.get("schema") != SCHEMA:
        raise ValueError(f"message schema {meta.get('schema')!r}, expected {SCHEMA}: update the older side")
    return meta


def _array(params: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name not in params:
        raise ValueError(f"array {name!r} is missing")
    values = np.asarray(params[name])
    if values.dtype.kind not in "fiu":
        raise ValueError(f"array {name!r} has type {values.dtype}, expected numbers")
    if values.shape != shape:
        raise ValueError(f"array {name!r} has shape {values.shape}, expected {shape}")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"array {name!r} holds values that are not finite")
    return values


def _counts(params: Mapping[str, Any], name: str, n_counts: int) -> np.ndarray:
    values = np.asarray(params.get(name))
    if values.dtype.kind not in "iu" or values.shape != (n_counts,) or np.any(values < 0):
        raise ValueError(f"array {name!r} is not a vector of {n_counts} counts")
    return values.astype(np.int64)


def _evaluation_arrays(evaluation: Evaluation) -> dict[str, np.ndarray]:
    arrays = {
        "dev": evaluation.dev,
        "dev_loss": np.array([evaluation.dev_loss_sum, evaluation.dev_size], dtype=np.float64),
    }
    if evaluation.test is not None:
        arrays["test"] = evaluation.test
    return arrays


def _evaluation(params: Mapping[str, Any], n_counts: int) -> Evaluation:
    loss_sum, size = _array(params, "dev_loss", (2,))
    test = _counts(params, "test", n_counts) if "test" in params else None
    return Evaluation(_counts(params, "dev", n_counts), float(loss_sum), int(size), test)


def _counter_fields(counters: Counters) -> dict[str, Any]:
    return {
        "queries": counters.queries,
        "example_forwards": counters.example_forwards,
        "seconds": round(counters.seconds, 3),
    }


def _counters(meta: Mapping[str, Any]) -> Counters:
    seconds = meta.get("seconds")
    if not isinstance(seconds, int | float) or not np.isfinite(seconds):
        raise ValueError(f"'seconds' is {seconds!r}, expected a number")
    return Counters(_natural(meta, "queries"), _natural(meta, "example_forwards"), float(seconds))


def _natural(meta: Mapping[str, Any], name: str) -> int:
    value = meta.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name!r} is {value!r}, expected a whole number of at least 0")
    return value
