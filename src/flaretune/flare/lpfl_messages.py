"""What server and sites say to each other in an LP-FL job, besides what `messages` has.

``train``: the server sends the global adapter (nothing, where each site starts from the pretrained parameters), a
site counts its right answers, trains, and answers with these and with its own adapter. Arrays have the names that
PEFT gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel

from flaretune.config.client import ClientConfig
from flaretune.errors import shown
from flaretune.flare.messages import (
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
    read_setup_answer,
    reader,
    setup_answer,
)
from flaretune.methods.lpfl.answers import LPFLSetupAnswer, TrainAnswer

TRAIN = "train"
Shapes = Mapping[str, tuple[int, ...]]
_EVALUATION = {"dev", "dev_loss", "test", "mass"}


def lpfl_setup_answer(answer: LPFLSetupAnswer) -> FLModel:
    model = setup_answer(answer.setup)
    model.params |= answer.initial
    return model


@reader
def read_lpfl_setup_answer(model: FLModel, config: type[ClientConfig] | None = None) -> LPFLSetupAnswer:
    """Read what a site tells when it is set up; see `read_setup_answer`."""
    setup = read_setup_answer(model, config)
    if config is not None:
        _read_shapes(setup.settings["parameters"])
        if not isinstance(setup.settings["adapter"], dict):
            raise TypeError("'adapter' is no table")
    return LPFLSetupAnswer(setup, read_arrays(model, _read_shapes(setup.settings["initial"])))


def train_task(sites: list[str], arrays: Mapping[str, np.ndarray], round_number: int, evaluate: bool) -> FLModel:
    """What to start from, and whether to evaluate it on the way."""
    return message(dict(arrays), {"sites": sites, "round": round_number, "evaluate": evaluate})


@reader
def read_train_task(model: FLModel) -> tuple[dict[str, np.ndarray], int, bool]:
    meta = read_meta(model)
    return _finite_arrays(model), read_natural(meta, "round"), read_flag(meta, "evaluate")


def train_answer(answer: TrainAnswer) -> FLModel:
    params = dict(answer.arrays)
    if answer.evaluation is not None:
        params |= evaluation_arrays(answer.evaluation)
    agreement = {} if answer.soft_labels_right is None else {"soft_labels_right": answer.soft_labels_right}
    fields = {"labelled": answer.labelled, "soft_labelled": answer.soft_labelled, "loss": answer.loss, **agreement}
    return message(params, {**fields, **counter_fields(answer.counters)})


@reader
def read_train_answer(
    model: FLModel, shapes: Shapes, n_counts: int | None, settings: Mapping[str, Any] | None = None
) -> TrainAnswer:
    """Read what a site has trained.

    Args:
        model: the message.
        shapes: of the arrays that travel.
        n_counts: how many counts the metric has, where an evaluation was asked for; None where it was not.
        settings: what the sites agree on, from which the most labelled texts follow; None to take any number.

    Raises:
        ValueError: a field or array is missing, too much, of another shape than it must have, or not finite.
    """
    meta = read_meta(model)
    right = read_natural(meta, "soft_labels_right") if "soft_labels_right" in meta else None
    labelled, soft_labelled = read_natural(meta, "labelled"), read_natural(meta, "soft_labelled")
    if labelled + soft_labelled == 0:
        raise ValueError("it trained on no examples")
    if right is not None and right > soft_labelled:
        raise ValueError(f"'soft_labels_right' is {right} of {soft_labelled} soft-labelled texts, which cannot be")
    if settings is not None:
        check_few_shots(settings, labelled=labelled)
    return TrainAnswer(
        arrays=read_arrays(model, shapes),
        labelled=labelled,
        soft_labelled=soft_labelled,
        soft_labels_right=right,
        loss=read_number(meta, "loss", at_least=0),
        counters=read_counters(meta),
        evaluation=None if n_counts is None else read_evaluation(model.params, n_counts),
    )


def evaluate_task(sites: list[str], arrays: Mapping[str, np.ndarray]) -> FLModel:
    return message(dict(arrays), {"sites": sites})


@reader
def read_evaluate_task(model: FLModel) -> dict[str, np.ndarray]:
    read_meta(model)
    return _finite_arrays(model)


def _finite_arrays(model: FLModel) -> dict[str, np.ndarray]:
    """All arrays of a task, whose shapes the model checks."""
    return {name: read_array(model.params, name, np.shape(values)) for name, values in model.params.items()}


def _read_shapes(told: Mapping[str, list[int]]) -> dict[str, tuple[int, ...]]:
    for name, shape in told.items():
        if not isinstance(name, str) or not all(type(n) is int and n > 0 for n in shape):
            raise ValueError(f"array {shown(name)} has the shape {shown(shape)}")
    return {name: tuple(shape) for name, shape in told.items()}


def read_arrays(model: FLModel, shapes: Shapes) -> dict[str, np.ndarray]:
    """The arrays of these names and shapes, and no others but an evaluation's, finite, as float32."""
    extra = sorted(set(model.params) - set(shapes) - _EVALUATION - {"zero_shot"})
    if extra:
        raise ValueError(f"array {extra[0]!r} is none of those that travel")
    return {name: _as_float32(name, read_array(model.params, name, shape)) for name, shape in shapes.items()}


def _as_float32(name: str, values: np.ndarray) -> np.ndarray:
    limit = np.finfo(np.float32).max
    if values.dtype != np.float32 and np.abs(values.astype(np.float64)).max(initial=0.0) > limit:
        raise ValueError(f"array {name!r} holds values that are not finite in float32")
    return values.astype(np.float32, copy=False)
