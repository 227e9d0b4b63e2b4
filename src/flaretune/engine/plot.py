"""The pictures of a run: accuracy by round, and how far probabilities can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flaretune.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL = (5, 3.4)  # inches: letters stay readable where a telephone makes it 370 pixels wide


def draw_curve(summary: dict[str, Any], path: Path) -> None:
    """Draw the curve into a file.

    Args:
        summary: contents of a run's summary.json.
        path: the picture to write; its ending says in which format.

    Raises:
        UserError: the picture cannot be written there, or not in that format.
    """
    try:
        curve(summary).savefig(path, dpi=120)
    except (OSError, ValueError) as error:  # ValueError: no such format
        reason = str(error).split("\n")[0]
        raise UserError(f"the curve cannot be drawn to {path} ({reason}); give a .png, .pdf or .svg file") from error


def curve(summary: Mapping[str, Any], size: tuple[float, float] = (7, 4)) -> Figure:
    """The test and validation metric by round with standard errors, the zero-shot one and the round that was chosen."""
    from matplotlib.ticker import MaxNLocator

    figure = _figure(size)
    axes = figure.add_subplot()
    for key, error, label, style in (
        ("accuracy", "standard_error", "test", "o-"),
        ("validation_accuracy", "validation_standard_error", "validation (chooses the round)", ".--"),
    ):
        known = [r for r in summary["rounds"] if r[key] is not None]
        if not known:
            continue
        (line,) = axes.plot([r["round"] for r in known], [r[key] for r in known], style, label=label)
        bars = [(r["round"], r[key], r[error]) for r in known if r.get(error) is not None]
        if bars:
            axes.errorbar(*zip(*bars, strict=True), fmt="none", ecolor=line.get_color(), alpha=0.6)
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
    if axes.get_legend_handles_labels()[0]:  # nothing of a run with noise and without public test data
        axes.legend(loc="lower right")
    return figure


def reliability(bins: Sequence[Mapping[str, float]]) -> Figure:
    """The share of correct predictions against their probability, from `Score.reliability`."""
    figure = _figure(SMALL)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], ":", color="gray", lw=1, label="as probable as it says")
    sizes = [20 + 200 * b["n"] / max(b["n"] for b in bins) for b in bins]
    confidence, correct = ([b[key] for b in bins] for key in ("confidence", "correct"))
    axes.plot(confidence, correct, color="tab:blue", lw=1)
    axes.scatter(confidence, correct, s=sizes, label="predictions (area: how many)")
    axes.set(xlabel="probability of the predicted class", ylabel="share of correct predictions")
    axes.set(xlim=(0, 1.05), ylim=(-0.05, 1.05))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    return figure


def svg(figure: Figure) -> bytes:
    """A figure as SVG, equal bytes for equal figures; its letters stay text."""
    from matplotlib import rc_context

    stream = BytesIO()
    with rc_context({"svg.hashsalt": "flaretune", "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
