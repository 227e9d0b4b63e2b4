"""What the server of an LP-FL job makes of the sites' arrays: FedAvg (arXiv 1602.05629), or something sturdier."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from nvflare.app_common.aggregators.weighted_aggregation_helper import WeightedAggregationHelper

from flaretune.aggregation.limits import FACTOR, shrinkage
from flaretune.methods.lpfl.answers import TrainAnswer
from flaretune.methods.lpfl.bounded import clip_updates, coordinate_median


def combine(
    aggregation: str, start: Mapping[str, np.ndarray], trained: Mapping[str, TrainAnswer], round_number: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays that a round ends with.

    ``plain`` is the mean weighted by numbers of texts. ``clipped`` is the same, after updates longer than
    `robust.FACTOR` times the lower median are shortened to the median, and numbers of texts limited to FACTOR times
    theirs: beside M − 1 honest sites of the same size one moves the result by FACTOR² / (M + FACTOR − 1) lengths of an
    update at the most, and by FACTOR / (M + FACTOR − 1) if it was shortened (M = 10: 0.36 and 0.18). ``median`` is the
    coordinate-wise median, whatever numbers of texts the sites claim.

    Args:
        aggregation: one of `robust.AGGREGATIONS`.
        start: what the sites started from, by name; empty where each started from the pretrained parameters.
        trained: the sites' answers.
        round_number: of the round.

    Returns:
        The arrays, float32; and the sites that were far above the others.
    """
    texts = {site: float(answer.labelled + answer.soft_labelled) for site, answer in trained.items()}
    arrays = {site: answer.arrays for site, answer in trained.items()}
    if aggregation == "mean":
        return average(arrays, texts, round_number), []
    clipped, shorter = clip_updates(start, list(arrays.values()))
    fewer = shrinkage(np.array(list(texts.values())), down_to=FACTOR)
    limited = [site for site, *by in zip(trained, shorter, fewer, strict=True) if min(by) < 1]
    if aggregation == "median":
        return coordinate_median(list(arrays.values())), limited
    # floats of Python: NumPy's would make the arrays float64
    texts = {site: n * float(by) for (site, n), by in zip(texts.items(), fewer, strict=True)}
    return average(dict(zip(trained, clipped, strict=True)), texts, round_number), limited


def average(
    arrays: Mapping[str, Mapping[str, np.ndarray]], texts: Mapping[str, float], round_number: int
) -> dict[str, np.ndarray]:
    """The mean of the sites' arrays, weighted by their numbers of texts and added in their order, float32."""
    helper, total = WeightedAggregationHelper(), sum(texts.values())
    for site, values in arrays.items():
        # shares, not numbers: float32 times a number of texts may be more than float32 holds
        helper.add(values, texts[site] / total, site, round_number)
    return {name: values.astype(np.float32, copy=False) for name, values in helper.get_result().items()}
