"""Taking a job's results out of the folder NVFlare leaves them in, and telling what they are."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

from flaretune.errors import UserError
from flaretune.engine.plot import draw_curve
from flaretune.engine.records import closing_report, write_json

SUMMARY = "summary.json"
# What every summary holds, and reports and curves are made from.
SUMMARY_KEYS = (
    "zero_shot_accuracy", "test_accuracy", "dev_accuracy", "best_round", "queries", "example_forwards",
    "bytes_down_per_client_round", "bytes_up_per_client_round", "seconds", "method", "artifact", "artifact_kind",
    "task", "metric", "sites", "rounds",
)  # fmt: skip
_SITE_ERROR = re.compile(r"ERROR flaretune\.site: (.*)")
_SERVER_ERROR = re.compile(
    r"(round \d+: \d+ of \d+ sites gave .*|the sites do not agree on .*|--init_adapter: .*|--freeze_a 1: .*"
    r"|tracking '.*|the results cannot be written: .*"
    r"|--checkpoint .*: the run there .*|no checkpoint in .* can be used.*|--dp_noise \S+ needs .*)"
)
_ROUND = re.compile(r"\b(round +(\d+)/\d+  accuracy .*)")  # of RoundRecord.line

RESULT_FILES = (SUMMARY, "best_prompt.safetensors", "config.json", "distribution.npz", "curve.png", "mlflow.db")
RESULT_FOLDERS = ("rounds", "best_adapter", "last_adapter", "tb_events", "wandb")


def forget_results(output: Path) -> None:
    """Remove an earlier run's results, so that nobody takes them for those of a run that fails."""
    for name in RESULT_FILES:
        (output / name).unlink(missing_ok=True)
    for name in RESULT_FOLDERS:
        shutil.rmtree(output / name, ignore_errors=True)
    for summary in output.glob(f"workspace/*/server/*/flaretune/{SUMMARY}"):  # the simulator's, which clears it later
        summary.unlink()


def collect_results(job_folder: Path, output: Path) -> Path | None:
    """Copy a job's results and its TensorBoard events, and draw its curve.

    Args:
        job_folder: what NVFlare downloaded or the simulator's workspace.
        output: where to; files of an earlier run there are replaced.

    Returns:
        `output`, or None if the job left no results.
    """
    found = next((path.parent for path in sorted(job_folder.rglob(f"flaretune/{SUMMARY}"))), None)
    if found is None:
        return None
    output.mkdir(parents=True, exist_ok=True)
    for name in RESULT_FOLDERS:
        shutil.rmtree(output / name, ignore_errors=True)
    half_written = shutil.ignore_patterns("*.partial", "*.old")  # of a job that was told to stop
    shutil.copytree(found, output, dirs_exist_ok=True, ignore=half_written)
    events = found.parent / "tb_events"
    if events.is_dir():
        shutil.copytree(events, output / "tb_events")
    summary = read_summary(output)
    summary["artifact"] = str(output / Path(summary["artifact"]).name)
    write_json(summary, output / SUMMARY)
    draw_curve(summary, output / "curve.png")
    return output


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary.json of a run.

    Raises:
        UserError: the folder holds none, or a damaged one.
    """
    file = folder / SUMMARY
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}): give the folder of a finished run") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): give the folder of a finished run") from error
    lacking = [key for key in SUMMARY_KEYS if not isinstance(values, dict) or key not in values]
    if lacking:
        raise UserError(f"{file} is no summary of a run: it lacks {', '.join(lacking)}")
    return values


def tell_results(output: Path) -> str:
    """What a person reads at the end of a job."""
    summary = read_summary(output)
    lines = [closing_report(summary, output / SUMMARY)]
    lines.append(f"{'curve':<25}{output / 'curve.png'}")
    lines.append(
        f'{"try it":<25}python -m flaretune predict --{summary["artifact_kind"]} {quote(summary["artifact"])} "…"'
    )
    return "\n".join(lines)


def error_sentences(logs: Path) -> Iterator[tuple[str, str]]:
    """(site, sentence) for what sites and server said was wrong, each once.

    Args:
        logs: a folder with a folder for each site and the server, in which their logs lie.
    """
    seen = set()
    for log in sorted(logs.rglob("log*.txt")):
        site = log.relative_to(logs).parts[0]
        for sentence in sentences_in(log.read_text(encoding="utf-8", errors="replace")):
            if (site, sentence) not in seen:
                seen.add((site, sentence))
                yield site, sentence


def sentences_in(log: str) -> Iterator[str]:
    """What the text of a log says was wrong."""
    for line in log.splitlines():
        for match in filter(None, (pattern.search(line) for pattern in (_SITE_ERROR, _SERVER_ERROR))):
            yield match[1]


def rounds_in(log: str) -> dict[int, str]:
    """The progress lines (`RoundRecord.line`) in the text of a server's log, by round."""
    return {int(match[2]): match[1] for match in _ROUND.finditer(log)}
