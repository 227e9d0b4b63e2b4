"""The metrics. A new one is a file beside this one, and its line here."""

from __future__ import annotations

from flaretune.errors import UserError, shown
from flaretune.tasks.metrics.accuracy import Accuracy
from flaretune.tasks.metrics.base import Metric
from flaretune.tasks.metrics.f1 import F1
from flaretune.tasks.metrics.macro_f1 import MacroF1

METRICS: dict[str, Metric] = {metric.name: metric for metric in (Accuracy(), F1(), MacroF1())}


def find_metric(name: str) -> Metric:
    """The metric of this name.

    Raises:
        UserError: there is none.
    """
    metric = METRICS.get(name) if isinstance(name, str) else None
    if metric is None:
        raise UserError(f"metric {shown(name)} is unknown; it must be one of {', '.join(METRICS)}")
    return metric


def value_text(name: str, value: float | None, standard_error: float | None = None) -> str:
    """A value of the metric of this name, for people: "F1 0.6667", "F1 0.6667 ± 0.0812"; "F1 -" for None."""
    error = "" if standard_error is None else f" ± {standard_error:.4f}"
    return f"{find_metric(name).title} {'-' if value is None else f'{value:.4f}{error}'}"
