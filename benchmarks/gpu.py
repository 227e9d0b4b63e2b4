"""Speed and memory of the black box on a GPU, with random weights; minutes, and nothing is fetched.

    PYTHONPATH=src python benchmarks/gpu.py                        # writes benchmarks/gpu.json
    PYTHONPATH=src python benchmarks/gpu.py --device cpu --shapes tiny    # a try without a GPU

Needs torch, transformers and numpy; neither nvflare nor datasets nor cma.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from measurements.evaluate import EvaluateSettings, evaluate, evaluate_table
from measurements.gpu_memory import memory_by_clients
from measurements.shapes import SHAPES, find_shapes

from flaretune.cli.console import add_manners, check_output, parse, run
from flaretune.engine.summary import write_json
from flaretune.errors import UserError
from flaretune.models.device import DTYPES, resolve_device

SHAPE_NAMES = ("roberta-base", "roberta-large", "llama-1b")
TINY = ("tiny-masked", "tiny-causal")
RESULT = Path(__file__).resolve().with_name("gpu.json")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu for a try (default: cuda)")
    parser.add_argument(
        "--shapes", nargs="+", metavar="NAME", default=list(SHAPE_NAMES), help=f"tiny, or of {', '.join(SHAPES)}"
    )
    parser.add_argument("--repeats", type=int, default=10, help="measurements, of which the median counts")
    parser.add_argument("--batch_size", type=int, default=0, help="texts in a forward pass; 0: what jobs use")
    parser.add_argument("--dtype", default="auto", help="of ours: auto, bfloat16 or float32 (default: auto)")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 4, 10], help="for the memory")
    parser.add_argument(
        "--output",
        "--json",
        metavar="FILE",
        type=Path,
        help="JSON file (default: benchmarks/gpu.json; on a CPU none)",
    )
    add_manners(parser)
    args = parse(parser, argv)
    return run(lambda: tell(args), args.debug)


def tell(args: argparse.Namespace) -> None:
    """Measure, keep the result, and print it."""
    check_output(args.output)
    result = measure(args)
    path = args.output or (None if args.device == "cpu" else RESULT)
    if path is None:
        print(json.dumps(result, indent=2))
    else:
        write_json(result, path)
    for name in ("plain", "perturbed"):
        print(f"\n{evaluate_table(result[name])}")
    print(f"\nMiB: {json.dumps(result['memory_mb'])}")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything, for the flags of the command line."""
    started = time.monotonic()
    if args.device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"--device {args.device}: this machine has no CUDA device; use a GPU, or cpu for a try")
    device = resolve_device(args.device)
    names = [name for given in args.shapes for name in (TINY if given == "tiny" else [given])]
    shapes = find_shapes(names)
    if min(args.clients) < 1:
        raise UserError(f"--clients {min(args.clients)}: must be at least 1")
    found = {
        name: evaluate(
            names,
            EvaluateSettings(perturb=perturb, repeats=args.repeats, batch_size=args.batch_size, dtype=args.dtype),
            device=args.device,
            real_model=False,
        )
        for name, perturb in (("plain", 0), ("perturbed", 1))
    }
    about = {name: found["plain"][name] for name in ("device", "date", "machine", "versions")}
    dtype = found["plain"]["settings"]["dtype"]
    memory = {shape.name: memory_by_clients(shape, device, DTYPES[dtype], args.clients) for shape in shapes}
    return {**about, "dtype": dtype, **found, "memory_mb": memory, "seconds": round(time.monotonic() - started, 1)}


if __name__ == "__main__":
    sys.exit(main())
