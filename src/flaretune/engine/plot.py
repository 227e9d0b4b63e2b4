"""The curve of a run: accuracy by round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flaretune.errors import UserError


def draw_curve(summary: dict[str, Any], path: Path) -> None:
    """Draw the test and validation metric by round, with the zero-shot one and the prompt that was chosen.

    Args:
        summary: contents of a run's summary.json.
        path: the picture to write; its ending says in which format.

    Raises:
        UserError: the picture cannot be written there, or not in that format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for key, label, style in (
        ("accuracy", "test", "o-"),
        ("validation_accuracy", "validation (chooses the round)", ".--"),
    ):
        points = [(r["round"], r[key]) for r in summary["rounds"] if r[key] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label)
    if summary["zero_shot_accuracy"] is not None:
        axes.axhline(summary["zero_shot_accuracy"], color="gray", lw=1, ls=":", label="zero-shot (template alone)")
    if summary["test_accuracy"] is not None:
        axes.plot(
            summary["best_round"], summary["test_accuracy"], "o", ms=12, mfc="none", color="tab:red",
            label=f"chosen: {summary['test_accuracy']:.3f}",
        )  # fmt: skip
    axes.set(
        xlabel="round",
        ylabel=summary["metric_title"],
        title=f"{summary['method']}, {summary['task']}, {len(summary['clients'])} clients",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:  # ValueError: no such format
        reason = str(error).split("\n")[0]
        raise UserError(f"the curve cannot be drawn to {path} ({reason}); give a .png, .pdf or .svg file") from error
