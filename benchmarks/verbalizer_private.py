"""What do noised sums leave of the learned verbalizer? Whole jobs in one process, without NVFlare.

    python benchmarks/verbalizer_private.py --output benchmarks/verbalizer_private.json

Movie reviews, --per_client labelled texts per class at every client, the demo's model, three seeds: without noise, and
with the noise that a release of --epsilon at δ = 1e-5 takes (all data of one client replaced by other data), for
several numbers of clients and of words. Sums are clipped to a client's share, so --dp_clip is 1 / number of clients.
Finished runs are kept in the JSON file; the table is of all that are there.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

from asked_once import AskedOnce
from in_process import client_names, kept, summary_of
from markdown_table import markdown_table, spread
from measurements.machine import circumstances

from flaretune.cli import console as command_line
from flaretune.cli.console import add_manners, check_output, parse
from flaretune.cli.jobs import read_preset
from flaretune.config.options import build
from flaretune.engine.summary import write_json
from flaretune.privacy.accountant import DELTA, epsilon


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--clients", type=int, nargs="+", default=[4, 20, 100], metavar="N", help="(default: 4 20 100)")
    parser.add_argument("--words", type=int, nargs="+", default=[64, 8], metavar="N", help="(default: 64 8)")
    parser.add_argument("--per_client", type=int, default=4, metavar="N", help="labels per class (default: 4)")
    parser.add_argument("--epsilon", type=float, default=8.0, metavar="X", help="(default: 8)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="(default: 1 2 3)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="keep the runs in this JSON file")
    add_manners(parser)
    asked = vars(parse(parser, argv))
    return command_line.run(lambda: run_all(asked), asked["debug"])


def run_all(asked: dict[str, Any]) -> int:
    """Make the runs that are not in the file yet, one by one, and print the table."""
    method, file = AskedOnce(), asked["output"]
    check_output(file)
    runs = kept(file)
    noise = noise_for(asked["epsilon"])
    cells = itertools.product(asked["clients"], asked["words"], (0.0, asked["epsilon"]), asked["seeds"])
    for clients, words, wanted, seed in cells:
        cell = {"clients": clients, "words": words, "epsilon": wanted, "seed": seed, "per_client": asked["per_client"]}
        if any(cell.items() <= run.items() for run in runs):
            continue
        private = {"dp_noise": noise, "dp_clip": 1 / clients, "dp_public_test": 1} if wanted else {}
        run = {**cell, **private, "accuracy": accuracy(method, cell, private)}
        runs.append(run)
        if not asked["quiet"]:
            print(run, file=sys.stderr)
        if file:
            write_json({"runs": runs, **circumstances()}, file)
    print(table(runs))
    return 0


def noise_for(wanted: float) -> float:
    """The least --dp_noise with which one release stays within an ε, to a thousandth of it."""
    low, high = 1e-2, 1e3
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if epsilon(middle, DELTA, 1) > wanted else (low, middle)
    return high


def accuracy(method: AskedOnce, cell: dict[str, Any], private: dict[str, Any]) -> float:
    """Test accuracy of a job's last round."""
    preset = {k: v for k, v in read_preset(method, "demo").items() if k in method.client_config.model_fields}
    own = {"k_shot": cell["per_client"] * cell["clients"], "n_words": cell["words"], "seed": cell["seed"]}
    config = build(method.client_config, {**preset, "eval_clients": "first", **own, **private})
    server = build(method.server_config, {"aggregation": "mean"})
    return summary_of(method, config, server, client_names(cell["clients"]))["rounds"][-1]["accuracy"]


def table(runs: list[dict[str, Any]]) -> str:
    """A row for each number of clients and words, without noise and with."""
    rows = []
    cells = sorted({(run["clients"], run["words"], run["epsilon"]) for run in runs})
    for clients, words, wanted in cells:
        found = [r["accuracy"] for r in runs if (r["clients"], r["words"], r["epsilon"]) == (clients, words, wanted)]
        rows.append([str(clients), str(words), f"{wanted:g}" if wanted else "no noise", spread(found)])
    return markdown_table(["clients", "words", "ε", "accuracy"], rows, "r", "Mean ± standard deviation over the seeds.")


if __name__ == "__main__":
    sys.exit(main())
