"""Plans of comparisons: what stands in their files, and the jobs that come of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compare_table import COLUMNS, Layout

from flaretune.cache import in_cache
from flaretune.cli.jobs import configs_of
from flaretune.config.client_flags import check_complete
from flaretune.config.job import JobConfig
from flaretune.config.old_names import old_names, renew
from flaretune.config.options import as_dict, build, defaults
from flaretune.config.toml import read_toml
from flaretune.errors import UserError, near
from flaretune.methods.registry import METHODS
from flaretune.tasks.spec import load_task, task_table

ROOT = Path(__file__).resolve().parents[1]
JOB_OPTIONS = ("n_clients", "threads", "gpu", "share_model")  # those of JobConfig that a plan may set
PARTS = {"seeds": list, "columns": list, "common": dict, "method": dict, "splits": dict, "rows": list}  # of a plan


@dataclass(frozen=True)
class Run:
    """One job of the comparison.

    Attributes:
        given: options as they stand in the plan, which may be by old names.
        options: the same by the names of today.
        resolved: all options, with their defaults.
        task: what the file of a task of one's own says, but for where its data is; None for a shipped task.
    """

    row: str
    split: str
    seed: int
    method: str
    given: dict[str, Any]
    options: dict[str, Any]
    resolved: dict[str, Any]
    task: dict[str, Any] | None

    @property
    def title(self) -> str:
        return f"{self.row}, {self.split}, seed {self.seed}"

    @property
    def shares_model(self) -> bool:
        """Whether its clients use a process that has the model, and hold none themselves."""
        return bool(self.resolved["share_model"])

    @property
    def folder(self) -> str:
        return f"{_slug(self.row)}-{_slug(self.split)}-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """A comparison: what its file says, how its table is laid out, and its jobs in the order they are run."""

    values: dict[str, Any]
    layout: Layout
    runs: tuple[Run, ...]


def read_plan(path: Path) -> Plan:
    """Read a plan, and check every job of it.

    Raises:
        UserError: the file cannot be read; see `make_plan`.
    """
    _, values = read_toml(path)
    check_keys(values, PARTS, str(path))
    for name, value in values.items():
        _check_type(value, PARTS[name], f"{path}: {name}")
    return make_plan(values, str(path))


def make_plan(values: dict[str, Any], path: str) -> Plan:
    """The jobs of a plan, every one checked.

    Args:
        values: contents of the plan's file.
        path: of that file, for messages.

    Raises:
        UserError: it lacks something, or holds what no job can be made of.
    """
    seeds, splits, rows = (values.get(key) for key in ("seeds", "splits", "rows"))
    for name, value in (("seeds", seeds), ("splits", splits), ("rows", rows)):
        if not value:
            raise UserError(f"{path}: it has no {name}; benchmarks/compare.toml shows what a plan looks like")
    if not all(type(seed) is int for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"{path}: seeds = {seeds} must be different whole numbers")
    columns = values.get("columns", list(Layout.columns))
    check_keys(columns, list(COLUMNS), f"{path}, columns")
    methods = values.get("method", {})
    check_keys(methods, METHODS, f"{path}, [method]")
    for name, value in (*((f"method.{n}", v) for n, v in methods.items()), *splits.items()):
        _check_type(value, dict, f"{path}: {name}")
    rows = [_read_row(row, list(splits), path) for row in rows]
    for names in ([row["name"] for row in rows], list(splits), *(row["splits"] for row in rows)):
        slugs = [_slug(name) for name in names]
        if len(set(slugs)) < len(slugs) or "" in slugs:
            raise UserError(f"{path}: the names {names} must differ in letters or digits, which name their folders")

    def make(row: dict[str, Any], split: str, seed: int) -> Run:
        parts = (values.get("common", {}), methods.get(row["method"], {}), splits[split], row["options"])
        given = {name: value for part in parts for name, value in part.items()}
        place = f"{path}, row {row['name']!r}, split {split}"
        try:
            options = of_today(row["method"], given)
        except UserError as error:
            raise UserError(f"{place}: {error}") from error
        resolved = {**_resolve(row["method"], options, place), "seed": seed}
        about = {"min_clients": resolved["min_clients"], "seed": seed}
        given, options = {**given, **about}, {**options, **about}
        return Run(row["name"], split, seed, row["method"], given, options, resolved, _read_task(resolved, place))

    # all rows with the first seed, then all with the second: an interrupted comparison has every row
    runs = tuple(make(row, split, seed) for seed in seeds for row in rows for split in row["splits"])
    lines = {row["name"]: tuple(row["splits"]) for row in rows}
    return Plan(values, Layout(lines, tuple(splits), len(seeds), tuple(columns)), runs)


def _read_row(row: Any, splits: list[str], path: str) -> dict[str, Any]:
    _check_type(row, dict, f"{path}: an entry of rows")
    for key in ("name", "method"):
        if not isinstance(row.get(key), str):
            raise UserError(f"{path}: a row's {key} is {row.get(key)!r}; every row needs a text there")
    place = f"{path}, row {row['name']!r}"
    row = {"splits": splits, "options": {}, **row}
    check_keys(row, ("name", "method", "splits", "options"), place)
    check_keys([row["method"]], METHODS, place)
    _check_type(row["splits"], list, f"{place}: splits")
    check_keys(row["splits"], splits, f"{place}, splits")
    _check_type(row["options"], dict, f"{place}: options")
    return row


def _resolve(method: str, options: dict[str, Any], place: str) -> dict[str, Any]:
    """Every option of a job with its value, the seed's left at its default."""
    client, server = METHODS[method].client_config, METHODS[method].server_config
    if "seed" in options:
        raise UserError(f"{place}: seed = {options['seed']!r} stands among the options; give all seeds at the top")
    check_keys(options, [*JOB_OPTIONS, *defaults(client), *defaults(server)], place)
    try:
        job = build(JobConfig, options)
        options = {"min_clients": job.n_clients, **options}
        on_job = {name: getattr(job, name) for name in JOB_OPTIONS}
        told = build(client, options)
        check_complete(told)
        return {**on_job, **as_dict(build(server, options)), **as_dict(told)}
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def defaults_of(method: str) -> dict[str, Any]:
    """Every option of a method's jobs with its default."""
    on_job = {name: value for name, value in defaults(JobConfig).items() if name in JOB_OPTIONS}
    return {**on_job, **defaults(METHODS[method].server_config), **defaults(METHODS[method].client_config)}


def of_today(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their names of today.

    Raises:
        UserError: one asks for what is not there any more.
    """
    return renew(options, *configs_of(METHODS[method]), place="")[0]


def with_defaults(method: str, given: Mapping[str, Any], earlier_defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the defaults of their time; what both name, by whichever of its names, is as given."""
    names = old_names(*configs_of(METHODS[method]))
    taken = {names.get(name) or name for name in given}
    return {**{k: v for k, v in earlier_defaults.items() if (names.get(k) or k) not in taken}, **given}


def _read_task(options: dict[str, Any], place: str) -> dict[str, Any] | None:
    """A task of one's own, with which its runs are done again when it changes."""
    if not options["task_file"]:
        return None
    try:
        table = task_table(load_task(in_full(options["task_file"])))
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    del table["source"]
    return table


def in_full(value: Any) -> str:
    """An option's value as a job gets it."""
    return in_cache(str(value)).replace("{repository}", str(ROOT))


def check_keys(keys: Any, known: Any, place: str) -> None:
    """Raise a `UserError` that begins with a place for the first key that is not known."""
    for key in keys:
        if key not in known:
            raise UserError(f"{place}: there is no {key!r}; {near(str(key), known)}")


def _check_type(value: Any, wanted: type, place: str) -> None:
    if not isinstance(value, wanted):
        raise UserError(f"{place} is {value!r} and must be a {'table' if wanted is dict else 'list'}")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
