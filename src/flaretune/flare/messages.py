"""What both methods' messages share: envelope, evaluation, counters, and the checks on receipt.

Arrays travel in ``FLModel.params``; names, settings and counters in ``FLModel.meta["flaretune"]``. Nothing
is pickled, and no text, token, label or number of a single example leaves a site.

Two tasks are the same for both methods. ``setup``: the server names the sites, a site loads model and data and
tells its settings. ``evaluate``: a site counts right answers, for what the last round ended with.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel

from flaretune.config.client import ClientConfig
from flaretune.config.model import NUMBER_FORMATS
from flaretune.config.options import build, check_values, defaults
from flaretune.errors import shown
from flaretune.methods.artifact_parts import check_model, read_task
from flaretune.tasks import metrics
from flaretune.tasks.evaluation import HUGE, Counters, EvaluateAnswer, Evaluation, SetupAnswer

SCHEMA = 3
SETUP, EVALUATE = "setup", "evaluate"
_META = "flaretune"
MOST = 2**53  # of anything that is counted: a float64 holds every whole number until then
MOST_MEMORY_MB = 2**24  # of a process, in MiB: 16 TiB
Read = TypeVar("Read", bound=Callable)


def reader(read: Read) -> Read:
    """Let a reader of messages raise nothing but ValueError, whatever the other side has sent."""

    @functools.wraps(read)
    def checked(*args: Any, **more: Any) -> Any:
        try:
            return read(*args, **more)
        except (KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
            raise ValueError(f"a field is missing or of another type ({type(error).__name__}: {error})") from error

    return checked


def setup_task(sites: list[str]) -> FLModel:
    """Names of the sites of the job, in the order of their shares of a common data set."""
    return message({}, {"sites": sites})


def tell_run(model: FLModel, run: str, after_round: int) -> None:
    """Add to any task which run it belongs to and, in the setup, after which round the run goes on."""
    model.meta[_META] |= {"run": run, "after_round": after_round}


def tell_prior(model: FLModel, prior: np.ndarray) -> None:
    """Add to any task the classes' prior, float (C,), that sites divide out."""
    model.meta[_META]["prior"] = [float(p) for p in prior]


@reader
def read_prior(model: FLModel) -> np.ndarray | None:
    """The classes' prior, float64 (C,), summing to 1; None where nothing is calibrated."""
    meta = read_meta(model)
    if "prior" not in meta:
        return None
    return read_mass({"mass": meta["prior"]}, len(meta["prior"]))


@reader
def read_run(model: FLModel) -> tuple[str, int]:
    """The run's name, "" for one that nobody keeps, and after which round it goes on: 0 for a new one."""
    meta = read_meta(model)
    run = meta.get("run", "")
    if not (isinstance(run, str) and re.fullmatch(r"[0-9a-f]{0,64}", run)):  # it becomes the name of a folder
        raise ValueError(f"the run's name {shown(run)} is none that a server gives")
    return run, read_natural(meta, "after_round") if "after_round" in meta else 0


@reader
def read_sites(model: FLModel) -> list[str]:
    """The sites that any task names: a process that was started anew sets up from any of them."""
    sites = read_meta(model)["sites"]
    if not (isinstance(sites, list | tuple) and sites and all(isinstance(site, str) for site in sites)):
        raise ValueError(f"the sites are {shown(sites)}, expected a list of names")
    return list(sites)


def setup_answer(answer: SetupAnswer) -> FLModel:
    params = evaluation_arrays(answer.evaluation)
    if answer.zero_shot is not None:
        params["zero_shot"] = answer.zero_shot
    if answer.mass is not None:
        params["mass"] = answer.mass
    meta = {"settings": answer.settings, "n_train": answer.n_train, **counter_fields(answer.counters)}
    return message(params, meta if answer.dtype is None else {**meta, "dtype": answer.dtype})


@reader
def read_setup_answer(model: FLModel, config: type[ClientConfig] | None = None) -> SetupAnswer:
    """Read what a site tells when it is set up.

    Args:
        model: the message.
        config: of the job's method, by which the settings are checked; None to take any.

    Raises:
        ValueError: something is missing, of another type or shape than it must have, or no setting of this method.
    """
    meta = read_meta(model)
    settings = meta.get("settings")
    if not isinstance(settings, dict):
        raise ValueError("'settings' is missing")
    n_counts = len(np.atleast_1d(model.params.get("dev")))
    if config is not None:
        check_settings(settings, config)
        nothing = np.zeros(0, dtype=np.int64)
        n_counts = len(metrics.count(settings["task"]["metric"], nothing, nothing, 0))
    zero_shot = read_counts(model.params, "zero_shot", n_counts) if "zero_shot" in model.params else None
    if zero_shot is not None:
        metrics.check_possible(zero_shot)
    evaluation = read_evaluation(model.params, n_counts)
    mass = read_mass(model.params, len(settings["task"]["label_values"])) if "mass" in model.params else None
    n_train = read_natural(meta, "n_train")
    if config is not None:
        check_few_shots(settings, n_train=n_train, dev_loss=evaluation.dev_size)
    dtype = meta.get("dtype")
    if dtype not in (None, *NUMBER_FORMATS):
        raise ValueError(f"'dtype' is {shown(dtype)}, expected one of {', '.join(NUMBER_FORMATS)}")
    return SetupAnswer(settings, n_train, zero_shot, evaluation, read_counters(meta), mass, dtype)


def check_few_shots(settings: Mapping[str, Any], **sizes: int) -> None:
    """Check that a site has not more labelled texts of a kind than k for each class.

    Raises:
        ValueError: it says that it has; names the field.
    """
    most = settings["options"]["k_shot"] * len(settings["task"]["label_values"])
    for name, size in sizes.items():
        if size > most:
            raise ValueError(f"{name!r} tells of {size} texts, and --k_shot gives a site {most} at the most")


def check_settings(settings: Mapping[str, Any], config: type[ClientConfig]) -> None:
    """Check that a site's settings are such as a site of this method has, before anything is done by them.

    Raises:
        ValueError: something is missing or out of its range.
        KeyError, TypeError, AttributeError: something is of another type.
    """
    if settings["method"] != config.method:
        raise ValueError(f"it is a site of {shown(settings['method'])}, and the job is one of {config.method}")
    options = settings["options"]
    wanted = set(defaults(config)) - set(config.client_options)
    if set(options) != wanted:
        raise ValueError(f"its options differ from those of {config.method} in {sorted(set(options) ^ wanted)[:5]}")
    check_values(config, options)
    read_task(settings["task"], "setup answer")
    check_model(settings["model"])
    if "local_popsize" in options and settings.get("popsize") != (popsize := build(config, options).popsize):
        raise ValueError(f"'popsize' is {shown(settings.get('popsize'))}, and {popsize} follows from the options")


def evaluate_answer(answer: EvaluateAnswer) -> FLModel:
    return message(evaluation_arrays(answer.evaluation), counter_fields(answer.counters))


@reader
def read_evaluate_answer(model: FLModel, n_counts: int) -> EvaluateAnswer:
    return EvaluateAnswer(read_evaluation(model.params, n_counts), read_counters(read_meta(model)))


# ---- fields ----


def message(params: dict[str, Any], fields: dict[str, Any]) -> FLModel:
    return FLModel(params=params, meta={_META: {"schema": SCHEMA, **fields}})


def read_meta(model: FLModel) -> Mapping[str, Any]:
    meta = model.meta.get(_META) if isinstance(model.meta, Mapping) else None
    if not isinstance(meta, Mapping):
        raise ValueError("the message has no 'flaretune' field: is the other side running flaretune?")
    if type(meta.get("schema")) is not int or meta["schema"] != SCHEMA:
        raise ValueError(f"message schema {shown(meta.get('schema'))}, expected {SCHEMA}: update the older side")
    return meta


def read_array(params: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
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


def read_counts(params: Mapping[str, Any], name: str, n_counts: int) -> np.ndarray:
    values = np.asarray(params.get(name))
    if values.dtype.kind not in "iu" or values.shape != (n_counts,) or np.any((values < 0) | (values > MOST)):
        raise ValueError(f"array {name!r} is not a vector of {n_counts} counts")
    return values.astype(np.int64)


def read_mass(params: Mapping[str, Any], n_classes: int) -> np.ndarray:
    values = read_array(params, "mass", (n_classes,)).astype(np.float64)
    if np.any(values < 0) or not 0 < values.sum() <= MOST:
        raise ValueError("array 'mass' holds no probabilities of classes")
    return values


def evaluation_arrays(evaluation: Evaluation) -> dict[str, np.ndarray]:
    arrays = {
        "dev": evaluation.dev,
        "dev_loss": np.array([evaluation.dev_loss_sum, evaluation.dev_size], dtype=np.float64),
    }
    if evaluation.test is not None:
        arrays["test"] = evaluation.test
    return arrays


def read_evaluation(params: Mapping[str, Any], n_counts: int) -> Evaluation:
    loss_sum, size = (float(value) for value in read_array(params, "dev_loss", (2,)))
    if not (0 <= loss_sum <= HUGE and 0 <= size <= MOST):
        raise ValueError(f"'dev_loss' is [{loss_sum:g}, {size:g}], expected numbers of at least 0, and none so large")
    dev = read_counts(params, "dev", n_counts)
    metrics.check_possible(dev, int(size))
    test = read_counts(params, "test", n_counts) if "test" in params else None
    if test is not None:
        metrics.check_possible(test)
    return Evaluation(dev, loss_sum, int(size), test)


def counter_fields(counters: Counters) -> dict[str, Any]:
    fields = {
        "queries": counters.queries,
        "example_forwards": counters.example_forwards,
        "seconds": round(counters.seconds, 3),
        "memory_mb": counters.memory_mb,
    }
    return {**fields, "releases": counters.releases} if counters.releases else fields


def read_counters(meta: Mapping[str, Any]) -> Counters:
    return Counters(
        read_natural(meta, "queries"),
        read_natural(meta, "example_forwards"),
        read_number(meta, "seconds", at_least=0),
        read_number(meta, "memory_mb", at_least=0, at_most=MOST_MEMORY_MB),
        read_natural(meta, "releases") if "releases" in meta else 0,
    )


def read_number(meta: Mapping[str, Any], name: str, at_least: float = -HUGE, at_most: float = HUGE) -> float:
    value = meta.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not np.isfinite(float(value)):
        raise ValueError(f"{name!r} is {shown(value)}, expected a number")
    if not at_least <= value <= at_most:
        raise ValueError(f"{name!r} is {shown(value)}, expected a number between {at_least:g} and {at_most:g}")
    return float(value)


def read_flag(meta: Mapping[str, Any], name: str) -> bool:
    value = meta.get(name)
    if not isinstance(value, bool):
        raise ValueError(f"{name!r} is {shown(value)}, expected yes or no")
    return value


def read_natural(meta: Mapping[str, Any], name: str) -> int:
    value = meta.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
        raise ValueError(f"{name!r} is {shown(value)}, expected a whole number of at least 0")
    return value
