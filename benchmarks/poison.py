"""What do poisoning sites do to a run, and what do --aggregation clipped and median make of it?

    python benchmarks/poison.py --method fedbpt --output benchmarks/poison.json
    python benchmarks/poison.py --method lpfl --output benchmarks/poison.json

Runs the sites' own code and the server's aggregation in one process, without NVFlare: every combination of
aggregation, number of poisoning sites and seed. Options of the method's sites (--k_shot, --model_name, …) change the
demo's. Finished runs are kept in the JSON file, so that the command goes on where it was; the table is of all that are
there.

Poisoning sites, the last ones, work as the others do and then lie. FedBPT: the best fitness that a loss can have, a
sum of squared step sizes --strength times as large, and a mean --strength times as far away: in one random direction,
the same in all rounds and for all of them (--attack away), or opposite to where they went (reverse). LP-FL: --strength
times as many texts, and the update likewise turned or reversed. With --strength 1.9 they stay below what `clipped`
takes for a lie. About the development texts, by which the round is chosen, they say the truth.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from measure.machine import machine

from flaretune.aggregation.average import federated_average
from flaretune.aggregation.registry import RULES, find_rule
from flaretune.cli import console as command_line
from flaretune.cli.console import add_manners, check_output, parse
from flaretune.cli.jobs import FEDBPT, LPFL, read_preset
from flaretune.config.options import add_flags, as_dict, build
from flaretune.config.shared import GROUPS
from flaretune.engine.records import versions, write_json
from flaretune.errors import UserError
from flaretune.flare import fedbpt_client, lpfl_client
from flaretune.flare.site_script import load_data
from flaretune.methods.fedbpt.global_update import GlobalSearch
from flaretune.methods.fedbpt.limited_results import RoundResults, limit_results
from flaretune.methods.fedbpt.objective import FITNESS_RANGE
from flaretune.methods.lpfl.kept_states import KeptStates
from flaretune.seeding import derive_seed
from flaretune.tasks.metrics.registry import find_metric

METHODS = {"fedbpt": FEDBPT, "lpfl": LPFL}
# In place of the demo's, which has fewer sites: as many texts a site.
TEXTS_A_SITE = {"fedbpt": {"k_shot": 16}, "lpfl": {"k_shot": 2, "unlabelled": 64}}
ATTACKS = {"fedbpt": "away", "lpfl": "reverse"}


def main(argv: list[str] | None = None) -> int:
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--method", choices=METHODS, default="fedbpt", help="whose sites (default: fedbpt)")
    method = METHODS[first.parse_known_args(argv)[0].method]
    parser = argparse.ArgumentParser(
        usage="%(prog)s [--method METHOD] [--option value ...]",
        description=__doc__.splitlines()[0],
        parents=[first],
        allow_abbrev=False,
    )
    parser.add_argument("--sites", type=int, default=10, metavar="N", help="of the job (default: 10)")
    parser.add_argument(
        "--attackers", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="poisoning sites (default: 0 1 2)"
    )
    parser.add_argument(
        "--aggregations", nargs="+", choices=RULES, default=list(RULES), metavar="NAME",
        help=f"of {', '.join(RULES)} (default: all)",
    )  # fmt: skip
    parser.add_argument("--attack", choices=("away", "reverse"), help="(default: away for FedBPT, reverse for LP-FL)")
    parser.add_argument("--strength", type=float, default=100.0, metavar="X", help="of the lies (default: 100)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], metavar="N", help="of the runs (default: 1)")
    parser.add_argument("--rounds", type=int, default=0, metavar="N", help="of a run (default: the demo's)")
    parser.add_argument("--output", "--json", metavar="FILE", type=Path, help="keep the runs in this JSON file")
    add_manners(parser)
    add_flags(parser, method.site, groups=GROUPS, short=True)
    asked = vars(parse(parser, argv))
    return command_line.run(lambda: run_all(asked["method"], asked), asked["debug"])


def run_all(method: str, asked: Mapping[str, Any]) -> int:
    """Make the runs that are not in the file yet, one by one, and print the table."""
    preset = read_preset(METHODS[method], "demo")
    per_site = {name: number * asked["sites"] for name, number in TEXTS_A_SITE[method].items()}
    options = {**preset, **per_site, "calibrate": "none", "eval_clients": "first", "dtype": "bfloat16", **asked}
    rounds, attack = asked["rounds"] or preset["num_rounds"], asked["attack"] or ATTACKS[method]
    file = asked["output"]
    check_output(file)
    kept = json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else {"runs": []}
    for seed in asked["seeds"]:
        config = build(METHODS[method].site, {**options, "seed": seed})
        if config.calibrate != "none":
            raise UserError(f"--calibrate {config.calibrate}: its prior comes from a job's set-up, left out here")
        about = {"method": method, "sites": asked["sites"], "rounds": rounds, "strength": asked["strength"]}
        settings = {**about, "options": {k: v for k, v in as_dict(config).items() if k != "seed"}}
        sites = None
        for attackers in asked["attackers"]:
            for aggregation in asked["aggregations"]:
                cell = {"aggregation": aggregation, "attackers": attackers, "attack": attack, "seed": seed, **settings}
                if any({k: run.get(k) for k in cell} == cell for run in kept["runs"]):
                    continue
                sites = sites or SITES[method](config, [f"site-{i + 1}" for i in range(asked["sites"])])
                started = time.monotonic()
                result = one_run(sites, rounds, aggregation, Liar(attackers, attack, asked["strength"], seed))
                run = {**cell, **result, "seconds": round(time.monotonic() - started, 1)}
                kept = {"runs": [*kept["runs"], run], "machine": machine(), "versions": versions()}
                kept["date"] = date.today().isoformat()
                found = " ".join(f"{accuracy:.3f}" for accuracy in run["accuracy"])
                if not asked["quiet"]:
                    print(f"{method}, {aggregation}, {attackers} poisoning, seed {seed}: {found}", file=sys.stderr)
                if file:
                    write_json(kept, file)
    print(table(kept["runs"]))
    return 0


def one_run(sites: Any, rounds: int, aggregation: str, liar: Liar) -> dict[str, Any]:
    """Accuracy on test and development data from the start to the last round; it ends where no site can go on."""
    accuracy, dev_accuracy, limited = [], [], []
    for point, names in sites.run(rounds, aggregation, liar):
        evaluations = sites.evaluate(point)
        metric = find_metric(sites.spec.metric)
        dev = metric.value(sum(e.validation for e in evaluations))
        test = metric.value(evaluations[0].test)
        accuracy, dev_accuracy, limited = [*accuracy, test], [*dev_accuracy, dev], [*limited, names]
    best = max(range(len(accuracy)), key=lambda i: (dev_accuracy[i], i))
    return {
        "accuracy": [round(a, 4) for a in accuracy],
        "dev_accuracy": [round(a, 4) for a in dev_accuracy],
        "chosen_round": best,
        "limited": limited,
    }


class Liar:
    """What poisoning sites make of their answers.

    Args:
        number: of them, the last ones of the sites.
        attack: away or reverse.
        strength: how many times as long a step becomes.
        seed: of the direction away.
    """

    def __init__(self, number: int, attack: str, strength: float, seed: int):
        self._number, self._attack, self._strength, self._seed = number, attack, strength, seed

    def lies(self, site: int, n_sites: int) -> bool:
        return site >= n_sites - self._number

    def numbers(self, n: float) -> float:
        """A number that is the more convincing the larger it is."""
        return n * self._strength

    def moved(self, start: np.ndarray, end: np.ndarray, name: str) -> np.ndarray:
        """Where a step from `start` to `end` leads to instead; arrays of any one shape."""
        if self._attack == "reverse":
            return start - self._strength * (end - start)
        direction = np.random.default_rng(derive_seed(self._seed, "poison", name)).standard_normal(start.shape)
        length = np.linalg.norm(end - start) / np.linalg.norm(direction)
        return start + self._strength * length * direction


class SearchingSites:
    """FedBPT's sites, which ask one model in turn, and its server."""

    def __init__(self, config: Any, names: list[str]):
        loaded = [load_data(config, name, names) for name in names]
        self.spec = loaded[0][0]
        _, prompted, _ = fedbpt_client.open_site(config, names[0], names)
        self._config = config
        self._sites = [
            fedbpt_client.site_on(config, n, s, d, prompted) for n, (s, d) in zip(names, loaded, strict=True)
        ]

    def evaluate(self, point: np.ndarray) -> list[Any]:
        return [site.evaluate(point).evaluation for site in self._sites]

    def run(self, rounds: int, aggregation: str, liar: Liar) -> Iterator[tuple[np.ndarray, list[str]]]:
        """The mean, and the sites that were limited, after each round, the start first."""
        c = self._config
        search = GlobalSearch(c.intrinsic_dim, c.sigma, c.popsize, c.seed, c.bound)
        yield search.distribution.mean, []
        for round_number in range(1, rounds + 1):
            try:
                results = [self._answer(i, search, round_number, liar) for i in range(len(self._sites))]
            except FloatingPointError:
                return
            values = ([r.mean for r in results], [r.fitness for r in results], [r.sigma_square_sum for r in results])
            found = RoundResults(*map(np.array, values))
            found, limited = limit_results(find_rule(aggregation), search.distribution.mean, found)
            search.update(found.means, found.fitness, found.sigma_square_sums)
            yield search.distribution.mean, [f"site-{i + 1}" for i in np.flatnonzero(limited)]

    def _answer(self, i: int, search: GlobalSearch, round_number: int, liar: Liar):
        result = self._sites[i].search(search.distribution, round_number, evaluate=False).result
        if not liar.lies(i, len(self._sites)):
            return result
        low, _ = FITNESS_RANGE[self._config.loss_type]
        moved = liar.moved(search.distribution.mean, result.mean, "mean")
        return replace(result, mean=moved, fitness=low, sigma_square_sum=liar.numbers(result.sigma_square_sum))


class TrainingSites:
    """LP-FL's sites, which train one model in turn, and its server."""

    def __init__(self, config: Any, names: list[str]):
        self._config, self._names = config, names
        self._loaded = [load_data(config, name, names, unlabelled=config.unlabelled) for name in names]
        self.spec = self._loaded[0][0]
        self._folder = tempfile.TemporaryDirectory(prefix="flaretune-poison-")
        _, self._tuned = lpfl_client.open_site(config, names[0], names, self._states(names[0]))
        self._whole = self._tuned.initial or self._tuned.parameters.arrays()
        self._start()

    def _states(self, name: str) -> KeptStates:
        return KeptStates(Path(self._folder.name) / name)

    def _start(self) -> None:
        self._sites = [
            lpfl_client.site_on(self._config, name, spec, data, self._tuned, self._states(name))
            for name, (spec, data) in zip(self._names, self._loaded, strict=True)
        ]

    def evaluate(self, arrays: Mapping[str, np.ndarray]) -> list[Any]:
        return [site.evaluate(arrays).evaluation for site in self._sites]

    def run(self, rounds: int, aggregation: str, liar: Liar) -> Iterator[tuple[dict[str, np.ndarray], list[str]]]:
        """The arrays, and the sites that were limited, after each round, the start first."""
        self._start()  # with whole pools
        arrays = {name: self._whole[name] for name in self._tuned.parameters.shapes()}
        yield arrays, []
        for round_number in range(1, rounds + 1):
            try:
                trained = {n: self._answer(i, arrays, round_number, liar) for i, n in enumerate(self._names)}
            except FloatingPointError:
                return
            updates, n_texts = zip(*((a.arrays, a.labelled + a.soft_labelled) for a in trained.values()), strict=True)
            arrays, limited = federated_average(find_rule(aggregation), arrays, updates, n_texts)
            yield arrays, [name for name, above in zip(trained, limited, strict=True) if above]

    def _answer(self, i: int, arrays: Mapping[str, np.ndarray], round_number: int, liar: Liar):
        answer = self._sites[i].train(arrays, round_number, evaluate=False)
        if not liar.lies(i, len(self._sites)):
            return answer
        moved = {n: liar.moved(arrays[n], v, n).astype(np.float32) for n, v in answer.arrays.items()}
        return replace(answer, arrays=moved, labelled=round(liar.numbers(answer.labelled)))


SITES: dict[str, Callable[[Any, list[str]], Any]] = {"fedbpt": SearchingSites, "lpfl": TrainingSites}


def table(runs: list[Mapping[str, Any]]) -> str:
    """Test accuracy by aggregation and number of poisoning sites: of the round chosen, and after the last."""
    counts = sorted({run["attackers"] for run in runs})
    heads = [f"{n} poisoning" for n in counts]
    lines = [f"| method, attack | aggregation | {' | '.join(heads)} |", f"| --- | --- |{' --: |' * len(counts)}"]
    kinds = sorted({(run["method"], run["attack"], run["sites"]) for run in runs})
    for method, attack, n_sites in kinds:
        for aggregation in RULES:
            cells = []
            for number in counts:
                chosen = (method, attack, n_sites, aggregation, number)
                keys = ("method", "attack", "sites", "aggregation", "attackers")
                cells.append(_cell([run for run in runs if tuple(run[k] for k in keys) == chosen]))
            if any(cells):
                name = f"{METHODS[method].site.method}, {attack}, {n_sites} sites"
                lines.append(f"| {name} | {aggregation} | {' | '.join(cells)} |")
    note = (
        "Test accuracy of the round chosen by development data / after the last one; mean ± sample standard deviation."
    )
    return "\n".join([*lines, "", note])


def _cell(runs: list[Mapping[str, Any]]) -> str:
    if not runs:
        return ""
    chosen = [run["accuracy"][run["chosen_round"]] for run in runs]
    last = [run["accuracy"][-1] for run in runs]
    texts = [f"{mean(v):.3f}" + (f" ± {stdev(v):.3f}" if len(v) > 1 else "") for v in (chosen, last)]
    ended = sum(len(run["accuracy"]) <= run["rounds"] for run in runs)
    return " / ".join(texts) + (f" ({ended} of {len(runs)} ended early)" if ended else "")


if __name__ == "__main__":
    sys.exit(main())
