"""Which runs of a comparison are finished: in its output folder, or told of by an earlier report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compare_plan import Plan, Run, make_plan, of_today, with_defaults
from compare_result import CONFIG, Finished, read_entry, read_result

from flaretune.errors import UserError

JOB = "job.json"  # in a run's folder: what was asked, when and where; written last


@dataclass(frozen=True)
class Kept:
    """Finished runs.

    Attributes:
        output: has the folders of the runs.
        earlier: runs without a folder, by the name that it would have (see `read_earlier`).
    """

    output: Path
    earlier: Mapping[str, Finished] = field(default_factory=dict)

    def find(self, run: Run) -> Finished | None:
        """A run that has been done, with the options that it has now, and ended well."""
        return self._in_its_folder(run) or self.earlier.get(run.folder)

    def _in_its_folder(self, run: Run) -> Finished | None:
        folder = self.output / run.folder
        try:
            then, config = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (JOB, CONFIG))
            if _difference(run, then["method"], then["options"]) or then.get("task") != run.task:
                return None
            result = read_result(folder, run.row, run.split, run.seed, run.shares_model)
            return Finished(result, then["date"], then["machine"], config["versions"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # absent or damaged: it is run anew
            return None


def read_earlier(plan: Plan, facts: Path, tell: Callable[[str], None]) -> dict[str, Finished]:
    """The runs of a plan that its JSON file tells of, by the names of their folders.

    Left out are those whose options have changed since, and those with a task file, which the JSON file does not hold.

    Args:
        plan: as it is now.
        facts: what `write_report` wrote.
        tell: says which of them count, and why others do not.

    Raises:
        UserError: the file cannot be read or is no such file, or none of its runs counts.
    """
    try:
        told = json.loads(facts.read_text(encoding="utf-8"))
        results = {_place(values): values for values in told["runs"]}
        names = {run.row for run in plan.runs}
        then_asked = {**told["plan"], "rows": [row for row in told["plan"]["rows"] if row["name"] in names]}
        asked = {_place(vars(run)): run for run in make_plan(then_asked, str(facts)).runs}
        found, reasons = {}, Counter()
        for run in plan.runs:
            then, values = asked.get(_place(vars(run))), results.get(_place(vars(run)))
            if then is None or values is None:
                continue
            options = with_defaults(then.method, then.given, told["defaults"][then.method])
            if reason := "it has a task file of its own" if run.task else _difference(run, then.method, options):
                reasons[reason] += 1
                continue
            result = read_entry(values)
            date, where = (values.get(name, told[name]) for name in ("date", "machine"))
            found[run.folder] = Finished(result, date, where, told["versions"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--go_on: {facts} does not tell how its runs were made ({error!r})") from error
    why = "".join(f"; {number} not: {reason}" for reason, number in reasons.items())
    if not found:
        raise UserError(f"--go_on: of the runs in {facts} none counts for this plan{why}")
    tell(f"{len(found)} runs in {facts} count{why}")
    return found


def _place(values: Mapping[str, Any]) -> tuple[str, str, int]:
    return values["row"], values["split"], values["seed"]


def _difference(run: Run, method: str, options: Mapping[str, Any]) -> str:
    """In what a run of these options is not this one; "" if in nothing. An option newer than it, and not asked for,
    changes nothing.
    """
    if method != run.method:
        return f"method was {method} and is {run.method}"
    try:
        options = of_today(method, options)
    except UserError as error:
        return str(error)
    for name, value in options.items():
        if run.resolved.get(name) != value:
            return f"{name} was {value} and is {run.resolved.get(name)}"
    return next((f"{name} was not asked for" for name in run.options if name not in options), "")
