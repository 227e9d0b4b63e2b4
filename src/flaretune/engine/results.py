"""Taking a job's results out of the folder NVFlare leaves them in, and telling what they are."""

from __future__ import annotations

import shutil
from pathlib import Path
from shlex import quote
from typing import Any

from flaretune.engine import errors
from flaretune.engine.plot import draw_curve
from flaretune.engine.report import CONFIG, REPORT, write_report
from flaretune.engine.summary import closing_report, read_object, write_json
from flaretune.errors import UserError
from flaretune.methods.registry import METHODS

RESULTS = "flaretune"  # folder of the job's results in the server's run folder
SUMMARY = "summary.json"
# What every summary holds, and reports and curves are made from.
SUMMARY_KEYS = (
    "zero_shot_accuracy", "test_accuracy", "validation_accuracy", "best_round", "queries", "example_forwards",
    "bytes_down_per_client_round", "bytes_up_per_client_round", "seconds", "method", "artifact", "artifact_kind",
    "task", "metric", "metric_title", "clients", "rounds",
)  # fmt: skip
# What a job may leave, for the next one in the same folder to remove.
LEFT = [SUMMARY, CONFIG, REPORT, "distribution.npz", "curve.png", "mlflow.db", "rounds", "tb_events", "wandb"]
LEFT += [errors.FILE, *(name for method in METHODS.values() for name in (method.best, method.last) if name)]


def forget_results(output: Path) -> None:
    """Remove an earlier run's results, so that nobody takes them for those of a run that fails."""
    for name in LEFT:
        _remove(output / name)
    # the simulator's, which clears them later
    for pattern in (f"workspace/*/server/*/{RESULTS}/{SUMMARY}", f"workspace/**/{errors.FILE}"):
        for file in output.glob(pattern):
            file.unlink()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def collect_results(job_folder: Path, output: Path) -> Path | None:
    """Copy a job's results and its TensorBoard events, draw its curve, and write its report.

    Args:
        job_folder: what NVFlare downloaded or the simulator's workspace.
        output: where to; files of an earlier run there are replaced.

    Returns:
        `output`, or None if the job left no results.
    """
    found = results_in(job_folder)
    if not (found / SUMMARY).is_file():
        return None
    output.mkdir(parents=True, exist_ok=True)
    for folder in (path for path in (output / name for name in LEFT) if path.is_dir()):
        shutil.rmtree(folder, ignore_errors=True)
    half_written = shutil.ignore_patterns("*.partial", "*.old")  # of a job that was told to stop
    shutil.copytree(found, output, dirs_exist_ok=True, ignore=half_written)
    events = found.parent / "tb_events"
    if events.is_dir():
        shutil.copytree(events, output / "tb_events")
    summary = read_summary(output)
    summary["artifact"] = str(output / Path(summary["artifact"]).name)
    write_json(summary, output / SUMMARY)
    draw_curve(summary, output / "curve.png")
    write_report(output, summary, output / REPORT)
    return output


def results_in(job_folder: Path) -> Path:
    """The folder of the results below a job's; the job's own where there are none."""
    return next((path.parent for path in sorted(job_folder.rglob(f"{RESULTS}/{SUMMARY}"))), job_folder)


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary.json of a run.

    Raises:
        UserError: the folder holds none, or a damaged one.
    """
    file = folder / SUMMARY
    values = read_object(file, "give the folder of a finished run")
    lacking = [key for key in SUMMARY_KEYS if key not in values]
    if lacking:
        raise UserError(f"{file} is no summary of a run: it lacks {', '.join(lacking)}")
    return values


def tell_results(output: Path) -> str:
    """What a person reads at the end of a job."""
    summary = read_summary(output)
    lines = [closing_report(summary, output / SUMMARY)]
    lines += [f"{'curve':<25}{output / 'curve.png'}", f"{'report':<25}{output / REPORT}"]
    task = read_object(output / CONFIG, "give the folder of a finished run")["task"]
    texts = '"…"' if len(task["text_columns"]) == 1 else "--file FILE"  # of a task whose texts have several columns
    lines.append(f"{'try it':<25}python -m flaretune predict --result {quote(summary['artifact'])} {texts}")
    return "\n".join(lines)
