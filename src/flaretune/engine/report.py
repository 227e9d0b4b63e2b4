"""The report of a run: one HTML file without outside resources, made of what the run has left."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flaretune.engine.errors import failures_below
from flaretune.engine.plot import SMALL, curve, reliability, svg
from flaretune.engine.records import as_text
from flaretune.engine.summary import estimate_text, read_object
from flaretune.errors import UserError, shown
from flaretune.files import atomic_write
from flaretune.methods.registry import find_method
from flaretune.privacy.accountant import sentence

REPORT = "report.html"
CONFIG = "config.json"
N_WORDS = 10  # shown of each class, at the most
LARGE = 20  # classes: of more than these the most frequent confusions are shown, not all


def write_report(
    run: Path, summary: Mapping[str, Any], path: Path, evaluation: Mapping[str, Any] | None = None
) -> None:
    """Write the report of a run.

    Args:
        run: its folder.
        summary: contents of its summary.json.
        path: the HTML file to write.
        evaluation: contents of a file of `flaretune evaluate --output`; None for a report without tables of classes.

    Raises:
        UserError: the run's config.json or the evaluation cannot be used.
    """
    config = read_object(run / CONFIG, "give the folder of a finished run")
    best = next(r for r in summary["rounds"] if r["round"] == summary["best_round"])
    context = {
        "evaluation": None if evaluation is None else _evaluated(evaluation, summary),  # first: it may be refused
        "summary": summary,
        "estimates": {of: estimate_text(summary, of).strip() for of in ("zero_shot", "test", "validation")},
        "planned": config.get("server", {}).get("num_rounds"),
        "as_good": _as_good(summary["rounds"], best),
        "curve": _embedded(svg(curve(summary, SMALL))),
        "metrics": _names(summary["rounds"], "metrics"),
        "client_metrics": _names([best], "client_metrics"),
        "best": best,
        "chooses": best["validation_accuracy"] is not None,
        "is_private": "privacy" in summary,
        "cost": _cost(summary),
        "found": _found(run, summary),
        "wrong": [*_wrong(run, summary["rounds"])],
        "config": {name: config[name] for name in ("server", "options", "task", "model") if name in config},
        "versions": config.get("versions", {}),
    }
    atomic_write(path, _ENVIRONMENT.get_template("report.html").render(context))


def read_evaluation(file: Path) -> dict[str, Any]:
    """What `flaretune evaluate --output` has written.

    Raises:
        UserError: it cannot be read, or is no JSON object.
    """
    return read_object(file, "give a file of `flaretune evaluate --output`")


def _as_good(rounds: list[Mapping[str, Any]], best: Mapping[str, Any]) -> list[int]:
    """Other rounds whose validation metric is within a standard error of the best one's."""
    value, error = best["validation_accuracy"], best.get("validation_standard_error")
    if value is None or error is None:
        return []
    within = [r["round"] for r in rounds if (v := r["validation_accuracy"]) is not None and v >= value - error]
    return [number for number in within if number != best["round"]]


def _names(rounds: list[Mapping[str, Any]], key: str) -> list[str]:
    """Names of a method's numbers, each once; not those without any number."""
    return [*dict.fromkeys(name for r in rounds for name, value in r.get(key, {}).items() if value != {})]


def _evaluated(evaluation: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Tables of classes, and the picture of the reliability.

    Raises:
        UserError: it is none of a result of this kind, on this task.
    """
    try:
        labels, words, found = (evaluation[name] for name in ("label_values", "words", summary["artifact_kind"]))
        confusion = np.array(found["confusion"], dtype=np.int64)  # (C, C)
        if confusion.shape != (len(labels), len(labels)) or len(words) != len(labels):
            raise ValueError(f"{confusion.shape} confusion counts of {len(labels)} classes")
        bins, (task, result, data) = found["reliability"], (evaluation[name] for name in ("task", "result", "data"))
        picture = _embedded(svg(reliability(bins)))
        gap = sum(b["n"] * abs(b["confidence"] - b["correct"]) for b in bins) / confusion.sum()
        estimate = as_text(found["value"], found["standard_error"]).strip()
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the evaluation is none of a {summary['artifact_kind']} ({error!r}); write one with `flaretune evaluate "
            "--output`"
        ) from error
    if task != summary["task"]:
        raise UserError(f"the evaluation is of task {shown(task)}, and the run of {shown(summary['task'])}")
    names = [str(label) if str(label) == word else f"{label} ({word})" for label, word in zip(labels, words)]  # noqa: B905
    n_labels, n_predicted, hits = confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal()
    off = confusion - np.diag(hits)
    most = [divmod(int(cell), len(labels)) for cell in np.argsort(-off, axis=None, kind="stable")[:LARGE]]
    return {
        "result": result,
        "data": data,
        "n": int(confusion.sum()),
        "estimate": estimate,
        "names": names,
        "classes": [
            (name, n, said, _share(hit, said), _share(hit, n), _share(2 * hit, n + said))
            for name, n, said, hit in zip(names, *(a.tolist() for a in (n_labels, n_predicted, hits)), strict=True)
        ],
        "confusion": confusion.tolist() if len(labels) <= LARGE else [],
        "confused": [(names[row], names[column], int(off[row, column])) for row, column in most if off[row, column]],
        "bins": bins,
        "gap": float(gap),
        "picture": picture,
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _cost(summary: Mapping[str, Any]) -> dict[str, str]:
    """What the run cost, by heading."""
    rows = find_method(summary["method"]).report_rows(summary)
    down, up = (_number(summary[f"bytes_{way}_per_client_round"]) for way in ("down", "up"))
    return {
        "bytes per client and round": f"{down} down, {up} up",
        "queries": _number(summary["queries"]),
        **({} if "privacy" in summary else {"example-forwards": _number(summary["example_forwards"])}),
        **{name: text for name, text in rows.items() if name not in ("queries", "questions")},  # said above
        "seconds": _number(summary["seconds"]),
        **({} if "privacy" in summary else {"most memory of a client": f"{_number(summary['memory_mb'])} MiB"}),
        **({"privacy": sentence(summary["privacy"])} if "privacy" in summary else {}),
    }


def _found(run: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the run's artifact is: its size, and the words of each class; or why it cannot be read."""
    path = run / Path(summary["artifact"]).name
    try:
        artifact = find_method(summary["method"]).read(path)
    except UserError as error:
        return {"problem": str(error)}
    spec, learned = artifact.spec, getattr(artifact, "learned", None)
    files = [file for file in (path, *path.rglob("*")) if file.is_file()]
    words: list[list[str]] = []
    if learned:
        for weights in learned.head.weights.T:  # (F,) of a class
            own = [learned.word_texts[f] for f in np.argsort(-weights, kind="stable") if weights[f] > 0]
            words.append([*dict.fromkeys(word.strip() or repr(word) for word in own)][:N_WORDS])
    elif (wording := spec.wording(artifact.model["kind"])).has_label_words:
        words = [[name] for name in wording.names]
    return {
        "problem": "",
        "file": path.name,
        "size": sum(file.stat().st_size for file in files),
        "n_words": len(learned.word_texts) if learned else None,
        "templates": list(learned.templates) if learned else [],
        "words": list(zip(spec.label_values, words, strict=True)) if words else [],
    }


def _wrong(run: Path, rounds: list[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Who, in which round, what."""
    for failure in failures_below(run):
        yield failure.who, "", failure.sentence
    for record in rounds:
        for client, why in record.get("excluded", {}).items():
            yield client, str(record["round"]), f"its reply did not count: {why}"
        for client in record.get("clipped", ()):
            yield client, str(record["round"]), "its update was far beyond those of the others, and clipped"


def _embedded(picture: bytes) -> str:
    """An SVG file as the address of an image: nothing in it can be a script, or take another picture's ids."""
    return f"data:image/svg+xml;base64,{b64encode(picture).decode()}"


def _number(value: float | None) -> str:
    """For people: whole numbers with commas, others with four digits; a dash for none."""
    if value is None:
        return "–"
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _metric(value: float | None, standard_error: float | None = None) -> str:
    return "–" if value is None else as_text(value, standard_error)


def _json(value: Any) -> str:
    return value if value and isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"number": _number, "metric": _metric, "plain": _json}
