"""What do poisoning clients do to a run, and what do --aggregation clipped and median make of it?

    python benchmarks/poison.py --method fedbpt --output benchmarks/poison.json
    python benchmarks/poison.py --method lpfl --output benchmarks/poison.json
    python benchmarks/poison.py --method verbalizer --output benchmarks/poison.json

Runs whole jobs in one process, without NVFlare, every client with a model of its own: every combination of aggregation,
number of poisoning clients and seed. Options of the method's clients (--k_shot, --model_name, …) change the demo's.
Finished runs are kept in the JSON file, so that the command goes on where it was; the table is of all that are there.

Poisoning clients, the last ones, work as the others do and then lie. FedBPT: the best fitness that a loss can have, a
sum of squared step sizes --strength times as large, and a mean --strength times as far away: in one random direction,
the same in all rounds and for all of them (--attack away), or opposite to where they went (reverse). LP-FL: --strength
times as many texts, and the update likewise turned or reversed. Learned verbalizer: features --strength times as long,
of texts whose classes are exchanged; its clients share one model, which is asked once for all runs. With --strength
1.9 they stay below what `clipped` takes for a lie. About the validation texts, by which the round is chosen, they say
the truth.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from asked_once import AskedOnce
from compare_plan import of_today
from measurements.machine import circumstances

from flaretune.aggregation.registry import RULES
from flaretune.cli import console as command_line
from flaretune.cli.console import add_manners, check_output, parse
from flaretune.cli.jobs import read_preset
from flaretune.config.client import ClientConfig
from flaretune.config.flags import add_flags
from flaretune.config.groups import GROUPS
from flaretune.config.options import as_dict, build, defaults
from flaretune.config.server import ServerConfig
from flaretune.engine.codec import FIT
from flaretune.engine.errors import JobFailed
from flaretune.engine.records import RoundRecord
from flaretune.engine.results import read_summary
from flaretune.engine.rounds import Job
from flaretune.engine.summary import write_json
from flaretune.engine.transport import Handler, InProcessTransport
from flaretune.engine.worker import Worker
from flaretune.errors import UserError
from flaretune.methods.base import Method
from flaretune.methods.fedbpt.objective import FITNESS_RANGE
from flaretune.methods.message import Message
from flaretune.methods.registry import METHODS
from flaretune.methods.verbalizer.head import SUMS
from flaretune.seeding import derive_seed

# In place of the demo's, which has fewer clients: as many texts of each.
TEXTS_OF_A_CLIENT = {
    "fedbpt": {"k_shot": 16},
    "lpfl": {"k_shot": 2, "unlabelled": 64},
    "verbalizer": {"k_shot": 16},
}
ATTACKS = {"fedbpt": "away", "lpfl": "reverse", "verbalizer": "reverse"}
BASES = {"fedbpt": "words"}  # presets that options start from; else the demo's


def main(argv: list[str] | None = None) -> int:
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--method", choices=METHODS, default="fedbpt", help="whose clients (default: fedbpt)")
    method = METHODS[first.parse_known_args(argv)[0].method]
    parser = argparse.ArgumentParser(
        usage="%(prog)s [--method METHOD] [--option value ...]",
        description=__doc__.splitlines()[0],
        parents=[first],
        allow_abbrev=False,
    )
    parser.add_argument("--sites", type=int, default=10, metavar="N", help="clients of a job (default: 10)")
    parser.add_argument(
        "--attackers", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="poisoning clients (default: 0 1 2)"
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
    add_flags(parser, method.client_config, groups=GROUPS, short=True)
    asked = vars(parse(parser, argv))
    return command_line.run(lambda: run_all(method, asked), asked["debug"])


def run_all(method: Method, asked: Mapping[str, Any]) -> int:
    """Make the runs that are not in the file yet, one by one, and print the table."""
    preset = read_preset(method, BASES.get(method.name, "demo"))
    per_client = {name: number * asked["sites"] for name, number in TEXTS_OF_A_CLIENT[method.name].items()}
    options = {**preset, **per_client, "calibrate": "none", "eval_clients": "first", "dtype": "bfloat16", **asked}
    rounds, attack = asked["rounds"] or preset.get("num_rounds", 1), asked["attack"] or ATTACKS[method.name]
    file = asked["output"]
    check_output(file)
    if method.name == "verbalizer":
        method = AskedOnce()
    kept = json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else {"runs": []}
    for seed in asked["seeds"]:
        config = build(method.client_config, {**options, "seed": seed})
        about = {"method": method.name, "sites": asked["sites"], "rounds": rounds, "strength": asked["strength"]}
        settings = {**about, "options": {k: v for k, v in as_dict(config).items() if k != "seed"}}
        for attackers in asked["attackers"]:
            for aggregation in asked["aggregations"]:
                cell = {"aggregation": aggregation, "attackers": attackers, "attack": attack, "seed": seed, **settings}
                if any(_is_of(run, cell) for run in kept["runs"]):
                    continue
                started = time.monotonic()
                told = {"num_rounds": rounds, "aggregation": aggregation, "covariance": "full"}
                server = build(method.server_config, told)
                liar = Liar(attackers, attack, asked["strength"], seed)
                result = one_run(method, config, asked["sites"], server, liar)
                run = {**cell, **result, "seconds": round(time.monotonic() - started, 1)}
                kept = {"runs": [*kept["runs"], run], **circumstances()}
                found = " ".join(f"{accuracy:.3f}" for accuracy in run["accuracy"])
                if not asked["quiet"]:
                    what = f"{method.name}, {aggregation}, {attackers} poisoning, seed {seed}"
                    print(f"{what}: {found}", file=sys.stderr)
                if file:
                    write_json(kept, file)
    print(table(kept["runs"]))
    return 0


def _is_of(run: Mapping[str, Any], cell: Mapping[str, Any]) -> bool:
    """Whether a run that was kept is that of a cell; its options may have names of then, or be fewer."""
    if any(run.get(name) != value for name, value in cell.items() if name != "options"):
        return False
    method = METHODS[cell["method"]]
    try:
        options = {**defaults(method.client_config), **of_today(method.name, run["options"])}
    except UserError:  # it had one that is not there any more
        return False
    return all(options[name] == value for name, value in cell["options"].items())


class Liar:
    """What poisoning clients make of their replies.

    Args:
        number: of them, the last ones.
        attack: away or reverse.
        strength: how many times as long a step becomes.
        seed: of the direction away.
    """

    def __init__(self, number: int, attack: str, strength: float, seed: int):
        self._number, self._attack, self._strength, self._seed = number, attack, strength, seed

    def lies(self, client: int, n_clients: int) -> bool:
        return client >= n_clients - self._number

    def numbers(self, n: Any) -> Any:
        """A number that is the more convincing the larger it is."""
        return n * self._strength

    def moved(self, start: np.ndarray, end: np.ndarray, name: str) -> np.ndarray:
        """Where a step from `start` to `end` leads to instead; arrays of any one shape."""
        if self._attack == "reverse":
            return start - self._strength * (end - start)
        direction = np.random.default_rng(derive_seed(self._seed, "poison", name)).standard_normal(start.shape)
        length = np.linalg.norm(end - start) / np.linalg.norm(direction)
        return start + self._strength * length * direction


# (liar, options of the client, fit task, honest reply) -> reply
Lie = Callable[[Liar, ClientConfig, Message, Message], Message]


def fedbpt_lie(liar: Liar, config: ClientConfig, task: Message, reply: Message) -> Message:
    low, _ = FITNESS_RANGE[config.loss_type]
    arrays = {
        "mean": liar.moved(task.arrays["mean"], reply.arrays["mean"], "mean").astype(np.float32),
        "fitness": np.array([low]),
        "sigma_square_sum": liar.numbers(reply.arrays["sigma_square_sum"]),
    }
    return replace(reply, arrays={**reply.arrays, **arrays})


def lpfl_lie(liar: Liar, config: ClientConfig, task: Message, reply: Message) -> Message:
    """The texts that it has not are soft-labelled: nobody can have more labelled ones than --k_shot gives."""
    moved = {n: liar.moved(start, reply.arrays[n], n).astype(np.float32) for n, start in task.arrays.items()}
    told = dict(reply.fields["numbers"])
    told["soft_labelled"] += round(liar.numbers(told["labelled"])) - told["labelled"]
    return replace(reply, arrays={**reply.arrays, **moved}, fields={**reply.fields, "numbers": told})


def verbalizer_lie(liar: Liar, config: ClientConfig, task: Message, reply: Message) -> Message:
    """In the step of the sums; `--attack` makes no difference, since classes have one way to be exchanged."""
    if task.fields["step"] != SUMS:
        return reply
    cross = liar.numbers(reply.arrays["cross"][:, ::-1])
    counts, gram = reply.arrays["counts"][::-1].copy(), liar.numbers(liar.numbers(reply.arrays["gram"]))
    return replace(reply, arrays={**reply.arrays, "counts": counts, "cross": cross, "gram": gram})


LIES: dict[str, Lie] = {"fedbpt": fedbpt_lie, "lpfl": lpfl_lie, "verbalizer": verbalizer_lie}


def one_run(method: Method, config: ClientConfig, n_clients: int, server: ServerConfig, liar: Liar) -> dict[str, Any]:
    """Accuracy on test and validation data from the start to the last round; it ends where no client can go on.

    Raises:
        UserError: the job cannot begin, or a client has something to tell that the user can correct.
    """
    names = [f"site-{i + 1}" for i in range(n_clients)]
    with tempfile.TemporaryDirectory(prefix="flaretune-poison-") as name:
        folder = Path(name)
        handlers: dict[str, Handler] = {}
        for i, client in enumerate(names):
            worker = Worker(method, config, client, folder / "states", folder / "runs")
            handlers[client] = _handler(worker, LIES[method.name] if liar.lies(i, n_clients) else None, liar, config)
        records: list[RoundRecord] = []
        try:
            Job(method, server, InProcessTransport(handlers), folder / "results", records.append).run()
        except JobFailed as error:
            if isinstance(error.__cause__, UserError | OSError) or not records:
                raise UserError(str(error)) from error
        best = read_summary(folder / "results")["best_round"]
    return {
        "accuracy": [round(r.accuracy, 4) for r in records],
        "dev_accuracy": [round(r.validation_accuracy, 4) for r in records],
        "chosen_round": best,
        "limited": [r.clipped for r in records],
    }


def _handler(worker: Worker, lie: Lie | None, liar: Liar, config: ClientConfig) -> Handler:
    """What handles a client's tasks; of one that poisons, with a lie in place of each fit reply."""

    def handle(task: str, message: Message) -> Message | None:
        try:
            reply = worker(task, message)
        except FloatingPointError:  # it has nothing to send
            return None
        return lie(liar, config, message, reply) if lie and task == FIT else reply

    return handle


def table(runs: list[Mapping[str, Any]]) -> str:
    """Test accuracy by aggregation and number of poisoning clients: of the round chosen, and after the last."""
    counts = sorted({run["attackers"] for run in runs})
    heads = [f"{n} poisoning" for n in counts]
    lines = [f"| method, attack | aggregation | {' | '.join(heads)} |", f"| --- | --- |{' --: |' * len(counts)}"]
    kinds = sorted({(run["method"], run["attack"], run["sites"]) for run in runs})
    for method, attack, n_clients in kinds:
        for aggregation in RULES:
            cells = []
            for number in counts:
                chosen = (method, attack, n_clients, aggregation, number)
                keys = ("method", "attack", "sites", "aggregation", "attackers")
                cells.append(_cell([run for run in runs if tuple(run[k] for k in keys) == chosen]))
            if any(cells):
                name = f"{METHODS[method].title}, {attack}, {n_clients} clients"
                lines.append(f"| {name} | {aggregation} | {' | '.join(cells)} |")
    note = (
        "Test accuracy of the round chosen by validation data / after the last one; mean ± sample standard deviation."
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
