"""What does noise leave of LP-FL with a few numbers in place of B? One round of many clients, in one process.

    python benchmarks/lpfl_private.py --output benchmarks/lpfl_private.json

Movie reviews, --per_client labelled texts per class at every client, the settings of LP-FL's demo without soft labels
and with --subspace_dim, --seeds. Every client trains once from the pretrained model; its result is released as a job's
is, without noise and with what one release of each --epsilon at δ = 1e-5 takes (all data of one client replaced by
other data), and the mean over the first --clients of them is evaluated on the test texts. One model serves all clients.
Finished runs are kept in the JSON file; the table is of all that are there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from in_process import client_names, kept
from markdown_table import markdown_table, spread
from measurements.machine import circumstances
from verbalizer_private import noise_for

from flaretune.cli import console as command_line
from flaretune.cli.console import add_manners, check_output, parse
from flaretune.cli.jobs import read_preset
from flaretune.config.options import build, changed
from flaretune.engine.summary import write_json
from flaretune.methods.base import ClientContext
from flaretune.methods.exchanged import FitRequest
from flaretune.methods.lpfl.client import LPFLClient, open_client
from flaretune.methods.lpfl.config import LPFLConfig
from flaretune.methods.lpfl.subspace import THETA, WIRE
from flaretune.methods.registry import find_method
from flaretune.privacy.release import Releases
from flaretune.tasks.metrics.registry import find_metric
from flaretune.tasks.spec import load_task


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--clients", type=int, nargs="+", default=[4, 20, 100], metavar="N", help="(default: 4 20 100)")
    parser.add_argument("--dims", type=int, nargs="+", default=[200], metavar="D", help="--subspace_dim (default: 200)")
    parser.add_argument("--clip", type=float, default=0.1, metavar="X", help="--dp_clip (default: 0.1)")
    parser.add_argument("--per_client", type=int, default=4, metavar="N", help="labels per class (default: 4)")
    parser.add_argument("--epsilon", type=float, nargs="+", default=[8.0, 12.0], metavar="X", help="(default: 8 12)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="(default: 1 2 3)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="keep the runs in this JSON file")
    add_manners(parser)
    args = parse(parser, argv)
    return command_line.run(lambda: run_all(args), args.debug)


def run_all(args: argparse.Namespace) -> int:
    """Make the runs that are not in the file yet, those of one dimension and seed together; print the table."""
    check_output(args.output)
    runs = kept(args.output)
    noises = {0.0: 0.0, **{epsilon: noise_for(epsilon) for epsilon in args.epsilon}}
    for dim in args.dims:
        for seed in args.seeds:
            about = {"subspace_dim": dim, "seed": seed, "per_client": args.per_client, "dp_clip": args.clip}
            cells = [{**about, "clients": n, "epsilon": epsilon} for n in args.clients for epsilon in noises]
            missing = [cell for cell in cells if not any(cell.items() <= run.items() for run in runs)]
            if not missing:
                continue
            for cell, accuracy in measured(missing, noises, client_names(max(args.clients))):
                runs.append({**cell, "dp_noise": noises[cell["epsilon"]], "accuracy": accuracy})
                if not args.quiet:
                    print(runs[-1], file=sys.stderr, flush=True)
            if args.output:
                write_json({"runs": runs, **circumstances()}, args.output)
    print(table(runs))
    return 0


def measured(
    cells: Sequence[Mapping[str, Any]], noises: Mapping[float, float], names: Sequence[str]
) -> Iterator[tuple[Mapping[str, Any], float]]:
    """Each cell, all of one dimension and seed, with its test accuracy after one round of these clients.

    Args:
        noises: --dp_noise for each ε, 0 for none.
    """
    one = cells[0]
    preset = read_preset(find_method("lpfl"), "demo")
    own = {
        **{"soft_labels": "off", "unlabelled": 0, "eval_clients": "first", "dp_public_test": 1, "dp_noise": 1.0},
        **{name: one[name] for name in ("subspace_dim", "seed", "dp_clip")},
        "k_shot": one["per_client"] * len(names),
    }
    config = build(LPFLConfig, {**{k: v for k, v in preset.items() if k in LPFLConfig.model_fields}, **own})
    with tempfile.TemporaryDirectory(prefix="flaretune-private-") as name:
        folder, start = Path(name), {THETA: np.zeros(one["subspace_dim"], WIRE)}
        request = FitRequest(1, start, {}, evaluate=False)
        clients = open_clients(config, names, folder)
        results = [client.fit(request) for client in clients]
        for i, cell in enumerate(cells):
            noise, told = noises[cell["epsilon"]], []
            for client, result in list(zip(clients, results, strict=True))[: cell["clients"]]:
                sent = result.arrays
                if noise:
                    releases = Releases(changed(config, dp_noise=noise), folder / f"{i}-{len(told)}")
                    sent, *_ = client.noised(result, request, releases)
                told.append(sent[THETA].astype(np.float64))
            counts = clients[0].evaluate({THETA: np.mean(told, axis=0).astype(WIRE)}).evaluation.test
            yield cell, find_metric(load_task(config.task_name).metric).estimate(counts).value


def open_clients(config: LPFLConfig, names: Sequence[str], folder: Path) -> list[LPFLClient]:
    """Of a job, with one model for all of them."""
    clients: list[LPFLClient] = []
    for name in names:
        tuned = clients[0].tuned if clients else None
        clients.append(open_client(config, ClientContext(name, names, folder / name), tuned))
    return clients


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """A row for each kind of run, without noise and with."""
    kinds = ("clients", "per_client", "subspace_dim", "dp_clip", "epsilon")
    rows = []
    for kind in sorted({tuple(run[name] for name in kinds) for run in runs}):
        found = [run["accuracy"] for run in runs if tuple(run[name] for name in kinds) == kind]
        *others, epsilon = (f"{value:g}" for value in kind)
        rows.append([*others, "no noise" if epsilon == "0" else epsilon, spread(found)])
    heads = ["clients", "labels per class", "numbers", "clip", "ε", "accuracy"]
    return markdown_table(heads, rows, "r", "Mean ± standard deviation over the seeds.")


if __name__ == "__main__":
    sys.exit(main())
