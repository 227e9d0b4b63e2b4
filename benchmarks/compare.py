"""What is each method worth? Runs the jobs of compare.toml one by one in the simulator, and tells what came out.

    python benchmarks/compare.py               # Ctrl-C stops it; the same command goes on where it was
    python benchmarks/compare.py --report      # only the table and the figure, of the runs that are there
    python benchmarks/compare.py --go_on       # the runs in the plan's JSON count too; without it they are replaced

Finished runs are kept in the output folder; the same command, given in a second terminal, works on the others. The
results of the plans that lie here go into a JSON file beside them, between the plan's markers in docs/benchmarks.md,
and into figs/; those of a plan of your own into the output folder.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from compare_kept import JOB, Kept, read_earlier
from compare_plan import METHODS, ROOT, Plan, Run, check_keys, defaults_of, in_full, read_plan
from compare_report import Places, write_report
from compare_result import Result, read_result
from measurements.machine import machine

from flaretune.cli import console as command_line
from flaretune.cli.console import STOPPED, add_manners, parse
from flaretune.engine.summary import write_json
from flaretune.errors import UserError

SHIPPED_PLAN = Path(__file__).resolve().with_name("compare.toml")
HEAVY = ("workspace", "best_adapter", "last_adapter", "rounds", "tb_events")  # of a finished run: removed
LOG = "log.txt"
ERROR = re.compile(r"^(?:\S+: )?error: (.*)", re.MULTILINE)  # as the job scripts, and argparse, say what is wrong


def job_command(run: Run, folder: Path) -> list[str]:
    """The command line that runs a job and leaves its results in a folder."""
    given = {**run.options, "output": folder.absolute()}
    flags = [f"--{name}={in_full(value)}" for name, value in given.items()]
    return [sys.executable, str(ROOT / "jobs" / METHODS[run.method].job_script), *flags]


def run_job(run: Run, output: Path, command: Callable[[Run, Path], list[str]] = job_command) -> Result:
    """Run a job, and keep what is needed of its results.

    Raises:
        UserError: it failed; its log is kept.
    """
    folder = output / run.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = folder / LOG
    with log.open("wb") as file:
        # a session of its own: a Ctrl-C at the terminal ends the job by way of this process alone
        streams = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
        process = psutil.Popen(command(run, folder), **streams, start_new_session=True)
        try:
            status = process.wait()
        except KeyboardInterrupt:
            _end(process)
            raise
    if status:
        said = ERROR.search(log.read_text(encoding="utf-8", errors="replace"))
        raise UserError(said[1] if said else f"it ended with status {status}")
    result = read_result(folder, run.row, run.split, run.seed, run.shares_model)
    for name in HEAVY:
        shutil.rmtree(folder / name, ignore_errors=True)
    asked = {"method": run.method, "asked": run.options, "options": run.resolved, "task": run.task}
    where = {"date": date.today().isoformat(), "machine": machine()}
    write_json({**asked, **where}, folder / JOB)  # last: it says that the run is finished
    return result


def _end(process: psutil.Popen) -> None:
    """End a job with all its processes: NVFlare's have groups of their own, so that the job's group is not enough."""
    family = [process, *process.children(recursive=True)]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    for member in psutil.wait_procs(family, timeout=10)[1]:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run_all(
    plan: Plan,
    todo: Sequence[Run],
    kept: Kept,
    minutes: float,
    after: Callable[[], Any],
    tell: Callable[..., None] = print,
) -> int:
    """Run jobs until `minutes` have passed, with `after` each that ended well; returns how many failed."""
    started, n_failed, output = time.monotonic(), 0, kept.output
    tell(f"{len(todo)} runs to do, {sum(kept.find(run) is not None for run in plan.runs)} done (kept in {output})")
    for number, run in enumerate(todo, 1):
        if time.monotonic() - started >= 60 * minutes:
            tell(f"{minutes:g} minutes have passed and {len(todo) - number + 1} runs are left: run it again to go on")
            break
        left = f"{len(todo) - number} left"
        tell(f"{run.title} …", end=" ", flush=True)
        with _claim(output / run.folder) as claimed:
            if not claimed or kept.find(run):
                tell(f"{'done' if claimed else 'being run'} by another process, {left}", flush=True)
                continue
            try:
                result = run_job(run, output)
            except UserError as error:
                n_failed += 1
                tell(f"failed, {left}", flush=True)
                print(f"error: {run.title} failed: {error} (see {output / run.folder / LOG})", file=sys.stderr)
                continue
        tell(f"accuracy {result.test_accuracy:.3f}, {result.seconds:.0f} s, {left}", flush=True)
        after()
    return n_failed


@contextmanager
def _claim(folder: Path) -> Iterator[bool]:
    """Whether a run is this process's: several may work on one plan. The claim ends with the process at the latest."""
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def report(plan: Plan, kept: Kept, places: Places) -> str | None:
    """Write the report of the finished runs of a plan (see `write_report`); a UserError if there is none."""
    found = [finished for run in plan.runs if (finished := kept.find(run))]
    if not found:
        raise UserError(f"{kept.output} has no finished run of this plan; run it without --report first")
    defaults = {method: defaults_of(method) for method in dict.fromkeys(run.method for run in plan.runs)}
    with (kept.output / ".report.lock").open("w") as lock:  # of another process with the same plan
        fcntl.flock(lock, fcntl.LOCK_EX)
        return write_report(plan.layout, plan.values, defaults, found, places)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder} cannot be made ({error.strerror}); give another folder") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 1 if a run failed, 130 if stopped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--plan", type=Path, default=SHIPPED_PLAN, help="TOML file (default: benchmarks/compare.toml)")
    parser.add_argument("--output", type=Path, help="folder of the runs (default: runs/NAME of the plan)")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="run these rows alone")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run when they have passed")
    parser.add_argument("--go_on", action="store_true", help="count runs that the plan's JSON tells of as done")
    parser.add_argument("--report", action="store_true", help="run nothing: only write table and figure")
    add_manners(parser)
    args = parse(parser, argv)
    args.output = args.output or ROOT / "runs" / args.plan.stem
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to be ended is to be stopped, as by Ctrl-C
    status = command_line.run(lambda: compare(args), args.debug)
    if status == STOPPED:
        print(f"\nstopped: what is finished is kept in {args.output}; run it again to go on", file=sys.stderr)
    return status


def compare(args: argparse.Namespace) -> int:
    """Run what is to be run, and report; returns the exit status."""
    plan = read_plan(args.plan)
    check_keys(args.only or [], list(plan.layout.rows), "--only")
    places = Places(args.output / "compare.json", args.output / "compare.png")
    if args.plan.resolve().parent == SHIPPED_PLAN.parent:
        name = args.plan.stem
        page = ROOT / "docs" / "benchmarks.md"
        places = Places(args.plan.with_suffix(".json"), ROOT / "figs" / f"{name}.png", [page], name)
    n_failed = 0
    tell = (lambda *_, **__: None) if args.quiet else print
    kept = Kept(args.output, read_earlier(plan, places.facts, tell) if args.go_on else {})
    _make_folder(args.output)
    if not args.report:
        todo = [run for run in plan.runs if run.row in (args.only or plan.layout.rows)]
        todo = [run for run in todo if kept.find(run) is None]
        n_failed = run_all(plan, todo, kept, args.minutes, lambda: report(plan, kept, places), tell)
    if args.report or any(kept.find(run) for run in plan.runs):
        text = report(plan, kept, places)
        print(text or f"table: in docs/benchmarks.md, figure: {places.figure}, numbers: {places.facts}")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
