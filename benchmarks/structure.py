"""Counts what the structure aims for: how many files a method, a rule, a search point and an adapter touch.

    python benchmarks/structure.py [--files] [--json]

The last two are measured: a small job of each method runs in this process, and every function of flaretune that it
calls is looked at.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
sys.path[:0] = [str(SRC), str(ROOT)]  # this checkout's, whichever is installed; the small models are the tests'

from flaretune.aggregation.registry import RULES  # noqa: E402
from flaretune.config.job import JobConfig  # noqa: E402
from flaretune.config.model_server import ServiceConfig  # noqa: E402
from flaretune.config.options import defaults  # noqa: E402
from flaretune.methods.registry import METHODS  # noqa: E402
from flaretune.tasks.metrics.registry import METRICS  # noqa: E402

D = 11  # of the search space: no other array of floats in the job has this many columns
OUTSIDE_THE_JOB = SRC / "flaretune" / "flare" / "transport.py"  # in place of the in-process transport


@dataclass
class Count:
    """A number beside its aim and that of version 0.1.0; None where there is none."""

    what: str
    now: int
    aim: int | None
    before: int | None
    files: list[str] = field(default_factory=list)


def of_files(what: str, files: set[Path], aim: int | None, before: int | None) -> Count:
    names = sorted(str(file.relative_to(ROOT)) for file in files)
    return Count(what, len(names), aim, before, names)


def lines(files: list[Path]) -> int:
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def option_names() -> set[str]:
    """Distinct options of clients, server, job and model server."""
    pairs = [(method.client_config, method.server_config) for method in METHODS.values()]
    return {n for kind in (JobConfig, ServiceConfig, *sum(pairs, ())) for n in defaults(kind)}


def method_files(name: str) -> set[Path]:
    """A method's folder with its presets, its template and its scripts."""
    folders = (SRC / "flaretune" / "methods" / name, ROOT / "job_templates" / name)
    found = {f for folder in folders for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts}
    return found | {SRC / f"{name}_train.py", ROOT / "jobs" / f"{name}_job.py"}


def entry_files(registry: Mapping[str, object], name: str) -> set[Path]:
    """Source files that know an entry of a registry: its own, its registry, and those with its name in quotes."""
    entry = type(registry[name])
    own = Path(sys.modules[entry.__module__].__file__)
    named = {f for f in SRC.rglob("*.py") if f'"{name}"' in f.read_text(encoding="utf-8")}
    return named | {own, own.with_name("registry.py")}


def is_search_point(value: object) -> bool:
    array = isinstance(value, np.ndarray) and value.ndim in (1, 2) and value.shape[-1] == D
    return array and value.dtype.kind == "f"  # token ids of 11 columns are there too


def is_adapter(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(n, str) and ".lora_A" in n for n in value)


def crossed(wanted: Callable[[object], bool], run: Callable[[], None]) -> set[Path]:
    """Files of flaretune with a function that has a wanted value among its arguments or its locals at the end."""
    found: set[str] = set()
    inside = str(SRC / "flaretune") + "/"

    def look(frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        ours = event in ("call", "return") and file.startswith(inside)
        if ours and file not in found and any(wanted(value) for value in list(frame.f_locals.values())):
            found.add(file)

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {Path(file) for file in found} | {OUTSIDE_THE_JOB}


def small_job(name: str, folder: Path) -> None:
    """Two rounds of two clients with a tiny model."""
    from tests.engine.in_process import run_job
    from tests.learnable import write_reviews
    from tests.models_for_tests import save_tiny_model

    options = {
        "model_name": str(save_tiny_model("roberta", folder / "model")),
        "dataset": str(write_reviews(folder / "data", n_train=90, n_test=30)),
        "k_shot": 9,
        "dtype": "float32",
        "eval_clients": "all",
    }
    own = {
        "fedbpt": {"n_prompt_tokens": 3, "intrinsic_dim": D, "local_iter": 2},
        "lpfl": {"unlabelled": 36, "lora_rank": 2, "local_epochs": 1, "local_steps": 2},
    }
    config = METHODS[name].client_config(**options, **own[name])
    told = run_job(METHODS[name], dict.fromkeys(["site-1", "site-2"], config), folder / "results", num_rounds=2)
    if told.failure:
        raise RuntimeError(f"the job of {name} failed, so that nothing can be counted: {told.failure}")


def crossings(name: str, wanted: Callable[[object], bool]) -> set[Path]:
    """Files that a method's wanted value crosses in a small job."""
    with tempfile.TemporaryDirectory() as folder:
        return crossed(wanted, lambda: small_job(name, Path(folder)))


def counts() -> list[Count]:
    """Everything; the numbers of version 0.1.0 are those of issue 17."""
    options = option_names()
    return [
        Count("lines of source (src/)", lines(list(SRC.rglob("*.py"))), 13_000, 16_600),
        Count("options", len(options), 70, 105, sorted(options)),
        Count("lines of README.md", lines([ROOT / "README.md"]), 200, 566),
        *(of_files(f"files of the method {name}", method_files(name), 8, 33) for name in METHODS),
        of_files("files that know the rule median", entry_files(RULES, "median"), None, 7),
        of_files("files that know the metric macro_f1", entry_files(METRICS, "macro_f1"), None, None),
        of_files("files that a search point crosses", crossings("fedbpt", is_search_point), 12, 21),
        of_files("files that an adapter crosses", crossings("lpfl", is_adapter), 12, 19),
    ]


def table(found: list[Count], with_files: bool) -> str:
    """A Markdown table; below it, on request, the files (or options) of each row."""
    rows = [
        f"| {c.what} | {c.now:,} | {'' if c.aim is None else f'{c.aim:,}'} | "
        f"{'' if c.before is None else f'{c.before:,}'} |"
        for c in found
    ]
    lists = [f"\n{c.what}:\n" + "\n".join(f"  {name}" for name in c.files) for c in found if c.files and with_files]
    return "\n".join(["| | now | aim at most | 0.1.0 |", "| --- | --: | --: | --: |", *rows, *lists])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", action="store_true", help="list the files, or options, of each row")
    parser.add_argument("--json", action="store_true", help="print JSON, with the files")
    args = parser.parse_args()
    found = counts()
    print(json.dumps([asdict(c) for c in found], indent=2) if args.json else table(found, args.files))


if __name__ == "__main__":
    main()
