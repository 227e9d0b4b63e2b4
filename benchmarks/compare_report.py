"""What the runs of a comparison found: the numbers of each, one table, one figure."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from flaretune.errors import UserError
from flaretune.report.results import read_summary
from flaretune.report.run_record import write_json

CONFIG, JOB = "config.json", "job.json"
DODGE = 0.07  # decades between points whose bytes are nearly the same


@dataclass(frozen=True)
class Layout:
    """How a comparison is laid out: its rows with the splits each is run on, its splits, its seeds."""

    rows: Mapping[str, Sequence[str]]
    splits: Sequence[str]
    n_seeds: int


@dataclass(frozen=True)
class Result:
    """What a run found, by the names of its summary.json; `parameters` are those trained or (FedBPT) searched."""

    row: str
    split: str
    seed: int
    method: str
    test_accuracy: float
    zero_shot_accuracy: float
    dev_accuracy: float | None
    best_round: int
    rounds: int
    bytes_down_per_client_round: float
    bytes_up_per_client_round: float
    parameters: int
    example_forwards: int
    memory_mb: float
    seconds: float
    soft_label_agreement: float | None
    shared_model: bool = False  # clients ask a process that has the model: theirs hold none
    epsilon: float | None = None  # of differential privacy; sites with noise do not tell what they spent

    @property
    def bytes_in_all(self) -> float:
        """Bytes that a client received and sent in the whole run."""
        return self.rounds * (self.bytes_down_per_client_round + self.bytes_up_per_client_round)


def read_result(folder: Path, row: str, split: str, seed: int, shared_model: bool = False) -> Result:
    """The numbers of a finished run, with what `Result` calls them.

    Raises:
        UserError: summary.json or config.json is missing, damaged, or lacks a number of the table.
    """
    values = read_summary(folder)
    try:
        options = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["options"]
        parameters = options["intrinsic_dim"] if values["method"] == "FedBPT" else values["trained_parameters"]
        own = {"row": row, "split": split, "seed": seed, "rounds": len(values["rounds"]) - 1, "parameters": parameters}
        own |= {"shared_model": shared_model, "epsilon": values.get("privacy", {}).get("epsilon")}
        found = {"soft_label_agreement": None, **values, **own}
        if None in (found["test_accuracy"], found["zero_shot_accuracy"]):
            raise ValueError("no test accuracy")
        return Result(**{item.name: found[item.name] for item in fields(Result)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"the results in {folder} lack what the table needs ({error!r}); give every run test data, by eval_clients"
        ) from error


@dataclass(frozen=True)
class Places:
    """Where a report goes; no README for a plan of one's own."""

    facts: Path
    figure: Path
    readme: Path | None = None
    marker: str = "compare"  # the name in the README's markers


def write_report(
    layout: Layout, plan: Mapping[str, Any], finished: Sequence[tuple[Result, Path]], places: Places
) -> str | None:
    """Write the numbers as JSON, the figure, and the table into the README.

    Args:
        layout: of table and figure.
        plan: contents of the plan's file, noted with the numbers.
        finished: what each finished run found, with its folder.
        places: where to.

    Returns:
        The table, if there is no README that has a place for it.

    Raises:
        UserError: the README's markers are not a pair.
    """
    results = [result for result, _ in finished]
    jobs, configs = (
        [json.loads((folder / name).read_text(encoding="utf-8")) for _, folder in finished] for name in (JOB, CONFIG)
    )
    about = {"date": max(job["date"] for job in jobs), "machine": _each_once(job["machine"] for job in jobs)}
    packages = dict.fromkeys(name for config in configs for name in config["versions"])
    versions = {name: _each_once(c["versions"].get(name, "none") for c in configs) for name in packages}
    runs = [{**asdict(result), "bytes_in_all": round(result.bytes_in_all)} for result in results]
    write_json({**about, "versions": versions, "plan": plan, "runs": runs}, places.facts)
    draw(layout, results, places.figure)
    text = table(layout, results, **about)
    if places.readme is None:
        return text
    # as bytes, so that its line ends stay as they are
    readme = between_markers(places.readme.read_bytes().decode(), places.marker, text)
    if readme is None:
        return text
    partial = places.readme.with_name("README.md.partial")
    partial.write_bytes(readme.encode())
    os.replace(partial, places.readme)
    return None


def _each_once(words: Iterable[str]) -> str:
    return "; ".join(sorted(set(words)))


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
        raise UserError(f"the README must have {begin} once and, behind it, {end} once; it holds another arrangement")
    return f"{text.split(begin)[0]}{begin}\n{new}\n{end}{text.split(end)[1]}"


def table(layout: Layout, results: Sequence[Result], date: str, machine: str) -> str:
    """The table in Markdown, with a sentence on how to read it."""
    split_names = [f"accuracy, {split}" for split in layout.splits]
    private = any(r.epsilon is not None for r in results)
    heads = [
        "", *split_names, *(["ε"] if private else []), "trained parameters", "bytes a client and round, down + up",
        "example-forwards", "memory of a client, MiB", "seconds",
    ]  # fmt: skip
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)]]
    zero_shot = [_range([r.zero_shot_accuracy for r in results if r.split == split]) for split in layout.splits]
    lines.append(["zero-shot (model and template alone)", *zero_shot, *(["–"] if private else []), "0", *["–"] * 4])
    for row, splits in layout.rows.items():
        mine = [r for r in results if r.row == row]
        accuracies = [
            _spread([r.test_accuracy for r in mine if r.split == split], layout.n_seeds) if split in splits else "–"
            for split in layout.splits
        ]
        epsilon = [_epsilon(mine)] if private else []
        lines.append([row, *accuracies, *epsilon, *(_costs(mine) if mine else ["–"] * 5)])
    head, rule, *rest = ("| " + " | ".join(cells) + " |" for cells in lines)
    note = (
        f"Accuracy on test data of the round chosen by development data: mean ± sample standard deviation over "
        f"{layout.n_seeds} seeds. Of all runs of a line: bytes and example-forwards (examples sent through the model, "
        "all clients and rounds) are means, memory (one client's process) the most, seconds (whole job) the fewest, "
        "since what else runs on a machine can only slow a job. "
        f"Measured on {machine}; last run {date}."
    )
    if any(r.shared_model for r in results):
        note = f"{note} Lines with * have the model once, in a process of its own, which is not in the memory."
    if private:
        note = f"{note} With noise (ε) the accuracy is that of the last round, and sites do not tell what they spent."
    return "\n".join([head, rule, *rest, "", note])


def _epsilon(results: Sequence[Result]) -> str:
    """The most that a run of a line cost a site."""
    told = [r.epsilon for r in results if r.epsilon is not None]
    return f"{max(told):,.1f}" if told else "–"


def _costs(results: Sequence[Result]) -> list[str]:
    """The cells behind the accuracies."""
    names = ("bytes_down_per_client_round", "bytes_up_per_client_round", "example_forwards")
    down, up, forwards = (statistics.mean(getattr(r, name) for r in results) for name in names)
    searched = " searched" if results[0].method == "FedBPT" else ""
    memory = f"{max(r.memory_mb for r in results):,.0f}{' *' if results[0].shared_model else ''}"
    told = all(r.epsilon is None for r in results)
    return [
        f"{results[0].parameters:,}{searched}",
        f"{size(down)} + {size(up)}",
        f"{forwards:,.0f}" if told else "–",
        memory if told else "–",
        f"{min(r.seconds for r in results):,.0f}",
    ]


def _spread(values: Sequence[float], n_planned: int) -> str:
    """Mean ± sample standard deviation, and how many there are if some are missing."""
    missing = f" ({len(values)} of {n_planned} seeds)" if len(values) < n_planned else ""
    if not values:
        return missing.strip()
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}{missing}"


def _range(values: Sequence[float]) -> str:
    """Zero-shot accuracy of the same texts, which differs as far as they are grouped into other batches."""
    return " to ".join(sorted({f"{value:.3f}" for value in (min(values), max(values))})) if values else "–"


def size(n_bytes: float) -> str:
    """Bytes with three digits, in B, kB, MB or GB (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.5 or unit == "GB":
            break
        n_bytes /= 1000
    return f"{float(f'{n_bytes:.3g}'):g} {unit}"


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
        xlabel="bytes a client receives and sends in the whole run (equal ones side by side)",
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
