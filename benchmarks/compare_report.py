"""What the runs of a comparison found: the numbers of each, one figure, and the table's place in the documentation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compare_result import Finished, Result
from compare_table import Layout, size, table

from flaretune.engine.summary import write_json
from flaretune.errors import UserError
from flaretune.files import atomic_write

DODGE = 0.07  # decades between points whose bytes are nearly the same


@dataclass(frozen=True)
class Places:
    """Where a report goes: the table into the first file that has a place for it, none for a plan of one's own."""

    facts: Path
    figure: Path
    pages: Sequence[Path] = ()
    marker: str = "compare"  # the name in the page's markers


def write_report(
    layout: Layout,
    plan: Mapping[str, Any],
    defaults: Mapping[str, Any],
    finished: Sequence[Finished],
    places: Places,
) -> str | None:
    """Write the numbers as JSON, the figure, and the table into a page.

    Args:
        layout: of table and figure.
        plan: contents of the plan's file, noted with the numbers.
        defaults: of each method's options, for those that the plan leaves out.
        finished: the runs to tell of.
        places: where to.

    Returns:
        The table, if no page has a place for it.

    Raises:
        UserError: a page's markers are not a pair.
    """
    results = [run.result for run in finished]
    about = {"date": max(run.date for run in finished), "machine": _each_once(run.machine for run in finished)}
    packages = dict.fromkeys(name for run in finished for name in run.versions)
    versions = {name: _each_once(run.versions.get(name, "none") for run in finished) for name in packages}
    runs = [run.entry() for run in finished]
    write_json({**about, "versions": versions, "plan": plan, "defaults": defaults, "runs": runs}, places.facts)
    draw(layout, results, places.figure)
    text = table(layout, results, **about)
    for file in places.pages:
        # as bytes, so that its line ends stay as they are
        page = between_markers(file.read_bytes().decode(), places.marker, text)
        if page is not None:
            atomic_write(file, page.encode())
            return None
    return text


def _each_once(words: Iterable[str]) -> str:
    """Different words, of which some may have been put together by this function before."""
    return "; ".join(sorted({word for several in words for word in several.split("; ")}))


def between_markers(text: str, name: str, new: str) -> str | None:
    """A text with what stands between its markers ``<!-- name: begin -->`` and ``<!-- name: end -->`` replaced.

    Returns:
        None if it has no markers.

    Raises:
        UserError: the markers are not one pair in this order.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in text and end not in text:
        return None
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise UserError(f"the page must have {begin} once and, behind it, {end} once; it holds another arrangement")
    return f"{text.split(begin)[0]}{begin}\n{new}\n{end}{text.split(end)[1]}"


def draw(layout: Layout, results: Sequence[Result], path: Path) -> None:
    """Draw accuracy against a client's bytes in a run: a colour for each row, the first split filled."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, NullFormatter

    groups = {
        (row, split): found
        for row in layout.rows
        for split in layout.splits
        if (found := [r for r in results if (r.row, r.split) == (row, split)])
    }
    places = _side_by_side({key: statistics.mean(r.bytes_in_all for r in found) for key, found in groups.items()})
    palette = colormaps["tab10" if len(layout.rows) <= 10 else "tab20"].colors
    colours = {row: palette[number % len(palette)] for number, row in enumerate(layout.rows)}
    shapes = {split: "ooDs^v"[number % 6] for number, split in enumerate(layout.splits)}

    figure = Figure(figsize=(9.5, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for (row, split), found in groups.items():
        style = {"color": colours[row], "marker": shapes[split]}
        if split != layout.splits[0]:
            style["mfc"] = "white"
        accuracies = [r.test_accuracy for r in found]
        x = places[row, split]
        axes.plot([x] * len(found), accuracies, **style, ms=3, lw=0.8)
        axes.plot([x], [statistics.mean(accuracies)], **style, ms=9, mew=1.5, ls="none")
    zero_shot = statistics.mean(r.zero_shot_accuracy for r in results)
    axes.axhline(zero_shot, color="gray", lw=1, ls=":")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(
        xlabel="bytes that a client receives and sends in the whole run (equal ones side by side)",
        ylabel="test accuracy (large: mean, small: each seed)",
    )
    axes.grid(alpha=0.3)
    axes.margins(x=0.08)
    dot = {"xdata": [], "ydata": [], "ls": "none", "ms": 8}
    rows = dict.fromkeys(row for row, _ in groups)
    handles = [Line2D(**dot, color=colours[row], marker="o", label=row) for row in rows]
    for split in layout.splits if len(layout.splits) > 1 else ():
        fill = "black" if split == layout.splits[0] else "white"
        handles.append(Line2D(**dot, color="black", mfc=fill, marker=shapes[split], label=split))
    handles.append(Line2D([], [], color="gray", lw=1, ls=":", label=f"zero-shot: {zero_shot:.3f}"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=120)


def _side_by_side(bytes_of: Mapping[Any, float]) -> dict[Any, float]:
    """Bytes by point, moved on a log axis so that no point hides another; neighbours stay in the order given."""
    clusters: list[list[Any]] = []
    for key in sorted(bytes_of, key=lambda key: bytes_of[key]):
        if clusters and math.log10(bytes_of[key] / bytes_of[clusters[-1][-1]]) < DODGE:
            clusters[-1].append(key)
        else:
            clusters.append([key])
    places = {}
    for cluster in clusters:
        middle = statistics.geometric_mean(bytes_of[key] for key in cluster)
        for number, key in enumerate(key for key in bytes_of if key in cluster):
            places[key] = middle * 10 ** (DODGE * (number - (len(cluster) - 1) / 2))
    return places
