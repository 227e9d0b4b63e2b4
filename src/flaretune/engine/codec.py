"""The tasks of a job as messages, the same for all methods.

``initialize``: the server names the clients, a client loads model and data and reports its settings. ``fit``: the
server sends where a round starts, a client evaluates that if it is asked to, works, and reports; in the step
``calibrate`` it reports what the prior of that is made from. ``evaluate``: a client counts correct predictions, for
what the last round ended with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flaretune.config.model import NUMBER_FORMATS
from flaretune.config.options import check_values
from flaretune.errors import shown
from flaretune.methods.artifact_parts import check_model
from flaretune.methods.base import Method
from flaretune.methods.exchanged import (
    Arrays,
    CalibrateResult,
    EvaluateResult,
    FitRequest,
    FitResult,
    InitializeResult,
)
from flaretune.methods.message import (
    MOST,
    Message,
    check_few_shots,
    message,
    read_array,
    read_arrays,
    read_counts,
    read_fields,
    read_flag,
    read_natural,
    read_number,
    reader,
)
from flaretune.tasks.calibration import LogProbSums
from flaretune.tasks.evaluation import HUGE, Counters, Evaluation
from flaretune.tasks.spec import read_task

TASKS = INITIALIZE, FIT, EVALUATE = "initialize", "fit", "evaluate"
CALIBRATE = "calibrate"  # a step of fit, before the one that evaluates
MOST_MEMORY_MB = 2**24  # of a process, in MiB: 16 TiB
_EVALUATION = ("validation", "validation_loss", "test")
_INITIALIZE = (*_EVALUATION, "zero_shot", "log_prob_sums")


# ---- what stands in every task ----


def task(clients: Sequence[str], run: str, after_round: int, prior: np.ndarray | None) -> dict[str, Any]:
    """Fields of every task.

    Args:
        clients: names of the job's clients, in the order of their shares of a common data set: a process that was
            started anew sets up from any task.
        run: name of the run; "" for one without checkpoints.
        after_round: that it resumes after; 0 for a new one.
        prior: of the classes, float (C,), which clients divide out; None for none.
    """
    common: dict[str, Any] = {"clients": list(clients)}
    if run:
        common |= {"run": run, "after_round": after_round}
    return common if prior is None else {**common, "prior": [float(p) for p in prior]}


@reader
def read_clients(received: Message) -> list[str]:
    """The clients that a task names."""
    clients = read_fields(received)["clients"]
    names = isinstance(clients, list | tuple) and all(isinstance(c, str) and c.isprintable() for c in clients)
    if not (names and clients):  # they stand in sentences
        raise ValueError(f"the clients are {shown(clients)}, expected a list of names")
    return list(clients)


@reader
def read_run(received: Message) -> tuple[str, int]:
    """The run's name, "" for one without checkpoints, and after which round it resumes: 0 for a new one."""
    said = read_fields(received)
    run = said.get("run", "")
    if not (isinstance(run, str) and re.fullmatch(r"[0-9a-f]{0,64}", run)):  # it becomes the name of a folder
        raise ValueError(f"the run's name {shown(run)} is none that a server gives")
    return run, read_natural(said, "after_round") if "after_round" in said else 0


@reader
def read_prior(received: Message) -> np.ndarray | None:
    """The classes' prior, float64 (C,); None where nothing is calibrated."""
    said = read_fields(received)
    if "prior" not in said:
        return None
    prior = read_array(said, "prior", (len(said["prior"]),)).astype(np.float64)
    if np.any(prior < 0) or not 0 < prior.sum() <= MOST:
        raise ValueError("'prior' holds no probabilities of classes")
    return prior


# ---- initialize ----


def initialize_message(common: Mapping[str, Any], num_rounds: int) -> Message:
    return message({}, {**common, "round": 0, "num_rounds": num_rounds})


@reader
def read_num_rounds(received: Message) -> int:
    """Rounds of the job, in the initialize task."""
    return read_natural(read_fields(received), "num_rounds")


def initialize_reply(result: InitializeResult) -> Message:
    arrays = {**result.arrays, **_evaluation_arrays(result.evaluation)}
    if result.zero_shot is not None:
        arrays["zero_shot"] = result.zero_shot
    said = {"settings": result.settings, "n_train": result.n_train, **_counter_fields(result.counters)}
    if result.log_probs is not None:
        arrays["log_prob_sums"] = result.log_probs.sums
        said["n_texts"] = result.log_probs.n_texts
    return message(arrays, said if result.dtype is None else {**said, "dtype": result.dtype})


@reader
def read_initialize_reply(received: Message, method: Method) -> InitializeResult:
    """Read what a client reports when it is initialized.

    Raises:
        ValueError: something is missing, of another type or shape than it must have, or no setting of this method.
    """
    said, arrays = read_fields(received), received.arrays
    settings = said.get("settings")
    if not isinstance(settings, dict):
        raise ValueError("'settings' is missing")
    _check_settings(settings, method)
    zero_shot = read_counts(arrays, "zero_shot", settings["task"]) if "zero_shot" in arrays else None
    evaluation = _read_evaluation(arrays, settings["task"])
    log_probs = _read_log_probs(said, arrays, settings["task"]) if "log_prob_sums" in arrays else None
    n_train = read_natural(said, "n_train")
    check_few_shots(settings, n_train=n_train, validation_loss=evaluation.n_validation)
    dtype = said.get("dtype")
    if dtype not in (None, *NUMBER_FORMATS):
        raise ValueError(f"'dtype' is {shown(dtype)}, expected one of {', '.join(NUMBER_FORMATS)}")
    shapes = {name: tuple(shape) for name, shape in settings.get("initial", {}).items()}
    initial = read_arrays({name: values for name, values in arrays.items() if name not in _INITIALIZE}, shapes)
    initial = {name: values.astype(np.float32) for name, values in initial.items()}
    return InitializeResult(settings, n_train, zero_shot, evaluation, _read_counters(said), log_probs, dtype, initial)


def _check_settings(settings: Mapping[str, Any], method: Method) -> None:
    """Check that a client's settings are such as a client of this method has, before anything is done by them.

    Raises:
        ValueError: something is missing or out of its range.
        KeyError, TypeError, AttributeError: something is of another type.
    """
    config = method.client_config
    if settings["method"] != method.title:
        raise ValueError(f"it is a client of {shown(settings['method'])}, and the job is one of {method.title}")
    options = settings["options"]
    wanted = set(config.model_fields) - set(config.client_options)
    if set(options) != wanted:
        raise ValueError(f"its options differ from those of {method.title} in {sorted(set(options) ^ wanted)[:5]}")
    check_values(config, options)
    read_task(settings["task"], "initialize reply")
    check_model(settings["model"])
    method.check_settings(settings)


def _read_log_probs(said: Mapping[str, Any], arrays: Mapping[str, Any], task: Mapping[str, Any]) -> LogProbSums:
    """What the prior is made from."""
    sums = read_array(arrays, "log_prob_sums", (len(task["label_values"]),)).astype(np.float64)
    told = LogProbSums(sums, read_natural(said, "n_texts"))
    if not told.is_plausible():
        raise ValueError(f"array 'log_prob_sums' holds no log-probabilities of {told.n_texts} texts")
    return told


# ---- fit ----


def fit_message(common: Mapping[str, Any], request: FitRequest) -> Message:
    about = {"round": request.round, "evaluate": request.evaluate, "numbers": dict(request.numbers)}
    step = {"step": request.step} if request.step else {}
    return message(request.arrays, {**common, **about, **step})


@reader
def read_fit_request(received: Message) -> FitRequest:
    said = read_fields(received)
    arrays = {name: read_array(received.arrays, name, np.shape(values)) for name, values in received.arrays.items()}
    if not isinstance(step := said.get("step", ""), str):
        raise ValueError(f"'step' is {shown(step)}, expected a name")
    return FitRequest(read_natural(said, "round"), arrays, _read_numbers(said), read_flag(said, "evaluate"), step)


def fit_reply(result: FitResult) -> Message:
    arrays = dict(result.arrays)
    if result.evaluation is not None:
        arrays |= _evaluation_arrays(result.evaluation)
    return message(arrays, {"numbers": dict(result.numbers), **_counter_fields(result.counters)})


@reader
def read_fit_reply(received: Message, task: Mapping[str, Any] | None) -> FitResult:
    """Read a client's round, whose arrays and numbers `Strategy.check` looks at.

    Args:
        received: the message.
        task: of the settings, where an evaluation was asked for; None where it was not.
    """
    said, arrays = read_fields(received), received.arrays
    own = {name: values for name, values in arrays.items() if name not in _EVALUATION}
    evaluation = None if task is None else _read_evaluation(arrays, task)
    return FitResult(own, _read_numbers(said), _read_counters(said), evaluation)


def calibrate_reply(result: CalibrateResult) -> Message:
    said = {"n_texts": result.log_probs.n_texts, **_counter_fields(result.counters)}
    return message({"log_prob_sums": result.log_probs.sums}, said)


@reader
def read_calibrate_reply(received: Message, task: Mapping[str, Any]) -> CalibrateResult:
    said = read_fields(received)
    return CalibrateResult(_read_log_probs(said, received.arrays, task), _read_counters(said))


# ---- evaluate ----


def evaluate_message(common: Mapping[str, Any], round_number: int, arrays: Arrays) -> Message:
    return message(arrays, {**common, "round": round_number})


@reader
def read_evaluate_request(received: Message) -> dict[str, np.ndarray]:
    read_fields(received)
    return {name: read_array(received.arrays, name, np.shape(values)) for name, values in received.arrays.items()}


def evaluate_reply(result: EvaluateResult) -> Message:
    return message(_evaluation_arrays(result.evaluation), _counter_fields(result.counters))


@reader
def read_evaluate_reply(received: Message, task: Mapping[str, Any]) -> EvaluateResult:
    return EvaluateResult(_read_evaluation(received.arrays, task), _read_counters(read_fields(received)))


# ---- fields ----


def _evaluation_arrays(evaluation: Evaluation) -> dict[str, np.ndarray]:
    arrays = {
        "validation": evaluation.validation,
        "validation_loss": np.array([evaluation.validation_loss_sum, evaluation.n_validation], dtype=np.float64),
    }
    return arrays if evaluation.test is None else {**arrays, "test": evaluation.test}


def _read_evaluation(arrays: Mapping[str, Any], task: Mapping[str, Any]) -> Evaluation:
    loss_sum, size = (float(value) for value in read_array(arrays, "validation_loss", (2,)))
    if not (0 <= loss_sum <= HUGE and 0 <= size <= MOST):
        raise ValueError(
            f"'validation_loss' is [{loss_sum:g}, {size:g}], expected numbers of at least 0, and none so large"
        )
    validation = read_counts(arrays, "validation", task, int(size))
    test = read_counts(arrays, "test", task) if "test" in arrays else None
    return Evaluation(validation, loss_sum, int(size), test)


def _counter_fields(counters: Counters) -> dict[str, Any]:
    said = {
        "queries": counters.queries,
        "example_forwards": counters.example_forwards,
        "seconds": round(counters.seconds, 3),
        "memory_mb": counters.memory_mb,
    }
    return {**said, "releases": counters.releases} if counters.releases else said


def _read_counters(said: Mapping[str, Any]) -> Counters:
    return Counters(
        read_natural(said, "queries"),
        read_natural(said, "example_forwards"),
        read_number(said, "seconds", at_least=0),
        read_number(said, "memory_mb", at_least=0, at_most=MOST_MEMORY_MB),
        read_natural(said, "releases") if "releases" in said else 0,
    )


def _read_numbers(said: Mapping[str, Any]) -> dict[str, int | float]:
    """Numbers of a method by name, finite."""
    numbers = said["numbers"]
    if not (isinstance(numbers, Mapping) and all(isinstance(name, str) for name in numbers)):
        raise ValueError(f"'numbers' is {shown(numbers)}, expected numbers by name")
    for name in numbers:
        read_number(numbers, name)
    return dict(numbers)
