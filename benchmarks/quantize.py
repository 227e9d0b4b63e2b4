"""What `--quantize` saves and costs: memory of the weights, texts a second, accuracy.

    python benchmarks/quantize.py --output benchmarks/quantize.json

Each way of quantising runs in a process of its own, with the demo's model in float32, on the demo's texts:

- memory: bytes of all parameters by what their tensors hold, the same of linear layers alone by arithmetic, and by how
  much the process' own memory (RssAnon, /proc/self/status) grew by loading.
- speed: log-probabilities of two words for the same texts by this model and by the float32 one, in turns in the same
  process; the ratio is the median over the turns.
- accuracy: a job of the learned verbalizer with four clients and seeds 1, 2 and 3, whose clients share one model and
  what it has said of a text, with the first of the task's templates alone. Round 0 is zero-shot: the model, that
  template and the label words.

torchao's int4 takes about a hundred times as long on a CPU in float32: its speed is measured on two texts, and its
accuracy with a float32 checkpoint whose linear layers hold what int4 rounds them to. That checkpoint's logits are
compared with those of int4 itself.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from asked_once import AskedOnce
from in_process import client_names, summary_of
from markdown_table import markdown_table, spread
from measurements.machine import circumstances

import flaretune
from flaretune.cache import in_cache
from flaretune.cli import console as command_line
from flaretune.cli.console import add_manners, check_output, parse
from flaretune.config.model import QUANTIZED
from flaretune.data.load import load_split
from flaretune.engine.summary import write_json
from flaretune.methods.verbalizer.config import VerbalizerConfig, VerbalizerServerConfig
from flaretune.models.load import Pretrained, load_pretrained
from flaretune.models.quantized import GROUP, is_quantized
from flaretune.models.word_log_probs import WordLogProbs
from flaretune.seeding import derive_seed
from flaretune.tasks.spec import load_task

TASK = "movie_reviews"
CLIENTS = client_names(4)
SLOW = "int4"  # on CPUs, in float32
BITS = {"none": 32, "int8": 8, "int4": 4 + 2 * 32 / GROUP, "nf4": 4 + 8 / 64 + 32 / (64 * 256)}  # scales included


def held_bytes(weight: torch.Tensor) -> int:
    """What a parameter's numbers take, scales included."""
    if hasattr(weight, "__tensor_flatten__") and is_quantized(weight):
        return sum(getattr(weight, name).nbytes for name in weight.__tensor_flatten__()[0])
    if (state := getattr(weight, "quant_state", None)) is not None:
        parts = [state.absmax, *([state.state2.absmax] if state.nested else [])]
        return weight.nbytes + sum(part.nbytes for part in parts)
    return weight.nbytes


def linear_layers(model: torch.nn.Module) -> list[torch.nn.Linear]:
    head = model.get_output_embeddings()
    return [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]


def own_memory() -> int:
    """Bytes of this process that are no file's."""
    gc.collect()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def rounded_to_int4(model_name: str, folder: str) -> None:
    """Save a checkpoint in float32 whose linear layers hold what int4 rounds them to."""
    from torchao.quantization import MappingType
    from torchao.quantization import quant_primitives as q

    loaded = load_pretrained(model_name, "float32", "cpu")
    for layer in linear_layers(loaded.model):
        block, limits = (1, GROUP), (0, 15)
        scale, zero = q._choose_qparams_affine_tinygemm(
            layer.weight, MappingType.ASYMMETRIC, block, torch.int32, *limits, 1e-6, None, torch.float32
        )
        whole = q._quantize_affine_tinygemm(layer.weight, block, scale, zero, torch.int32, *limits)
        layer.weight.data = q._dequantize_affine_tinygemm(
            whole, block, scale, zero, torch.int32, *limits, output_dtype=torch.float32
        )
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)


def log_probs_of(pretrained: Pretrained) -> WordLogProbs:
    spec = load_task(TASK)
    return WordLogProbs(pretrained, spec, [spec.wording(pretrained.kind).template], batch_size=8)


def memory_and_speed(way: str, model_name: str, turns: int) -> dict[str, Any]:
    """See the module."""
    torch.set_num_threads(1)
    before = own_memory()
    small = load_pretrained(model_name, "float32", "cpu", way)
    grown = own_memory() - before
    layers, parameters = linear_layers(small.model), dict(small.model.named_parameters()).values()
    n_linear = sum(layer.in_features * layer.out_features for layer in layers)
    texts = list(load_split(load_task(TASK), "test").texts[: 2 if way == SLOW else 16])
    words, found, seconds = np.array([1, 2]), [], []
    asked = [log_probs_of(load_pretrained(model_name, "float32", "cpu")), log_probs_of(small)]
    for _ in range(1 if way == SLOW else turns):
        for ask in asked:
            started = time.process_time()
            found.append(ask(texts, words))
            seconds.append(time.process_time() - started)
    ratios = [plain / quantized for plain, quantized in zip(seconds[::2], seconds[1::2], strict=True)]
    return {
        "linear_parameters": n_linear,
        "linear_mb_by_arithmetic": n_linear * BITS[way] / 8 / 2**20,
        "linear_mb": sum(held_bytes(layer.weight) for layer in layers) / 2**20,
        "all_mb": sum(held_bytes(weight) for weight in parameters) / 2**20,
        "resident_growth_mb": grown / 2**20,
        "texts_per_second_to_float32": median(ratios),
        "ratios": ratios,
        "timed_texts": len(texts),
        "log_prob_difference": float(np.abs(found[1] - found[0]).mean()),
    }


def accuracy(way: str, model_name: str, folder: str, k_shot: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """A run of the learned verbalizer for each seed."""
    torch.set_num_threads(1)
    runs, method = [], AskedOnce()
    for seed in seeds:
        task = str(Path(folder) / "task.toml")
        options = {"task_file": task, "model_name": model_name, "dataset": folder, "eval_clients": "all"}
        config = VerbalizerConfig(**options, k_shot=k_shot, seed=seed, quantize=way, dtype="float32")
        rounds = summary_of(method, config, VerbalizerServerConfig(min_clients=len(CLIENTS)), CLIENTS)["rounds"]
        runs.append({"seed": seed, "zero_shot": rounds[0]["accuracy"], "verbalizer": rounds[-1]["accuracy"]})
        print(way, runs[-1], flush=True)
    return runs


def same_as_int4(rounded: str, model_name: str) -> float:
    """The largest difference of a checkpoint's layer from int4's own, as a part of the largest number."""
    torch.set_num_threads(1)
    models = [
        load_pretrained(rounded, "float32", "cpu").model,
        load_pretrained(model_name, "float32", "cpu", SLOW).model,
    ]
    hidden = torch.from_numpy(np.random.RandomState(0).standard_normal((4, linear_layers(models[0])[0].in_features)))
    with torch.inference_mode():
        expected, found = (linear_layers(model)[0](hidden.float()) for model in models)
    return float((expected - found).abs().max() / expected.abs().max())


def lay_out(folder: Path, n_test: int) -> None:
    """Write the task's training texts, some of its test texts, and the task with one template into a folder."""
    spec = load_task(TASK)
    whole = (Path(flaretune.__file__).parent / "tasks" / "builtin" / f"{TASK}.toml").read_text(encoding="utf-8")
    lines = [line for line in whole.splitlines() if not line.startswith("templates = ")]
    (folder / "task.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pool, test = load_split(spec, "train"), load_split(spec, "test")
    test = test.take(np.random.default_rng(derive_seed(1, "quantize", "test")).permutation(len(test))[:n_test])
    for name, examples in ((spec.source.train, pool), (spec.source.test, test)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            rows = zip(examples.texts, examples.labels, strict=True)
            writer = csv.writer(file)
            writer.writerow([*spec.text_columns, spec.label_column])
            writer.writerows([*(t[c] for c in spec.text_columns), spec.label_values[label]] for t, label in rows)


def in_process(task: Any, *args: Any) -> Any:
    """What a function gives in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(task, args)


def run(args: argparse.Namespace) -> int:
    check_output(args.output)
    os.environ["HF_HUB_OFFLINE"] = "1"
    model_name, kept = in_cache(args.model_name), {}
    if args.output.is_file():
        kept = json.loads(args.output.read_text(encoding="utf-8"))["ways"]
    with tempfile.TemporaryDirectory(prefix="flaretune-quantize-") as name:
        data, rounded = Path(name) / "data", str(Path(name) / "rounded")
        data.mkdir()
        lay_out(data, args.n_test)
        for way in [way for way in args.ways if way not in kept]:
            measured: dict[str, Any] = in_process(memory_and_speed, way, model_name, args.turns)
            print(way, measured, flush=True)
            asked, quantize = model_name, way
            if way == SLOW:
                in_process(rounded_to_int4, model_name, rounded)
                measured["rounded_checkpoint_differs"] = in_process(same_as_int4, rounded, model_name)
                asked, quantize = rounded, "none"
            measured["runs"] = in_process(accuracy, quantize, asked, str(data), args.k_shot, args.seeds)
            kept[way] = measured
            about = {"model": Path(model_name).name, "task": TASK, "k_shot": args.k_shot, "n_test": args.n_test}
            write_json({**about, "dtype": "float32", "ways": kept, **circumstances()}, args.output)
    print(table(kept))
    return 0


def table(ways: dict[str, Any]) -> str:
    """In Markdown."""
    rows = [
        [
            f"`{way}`",
            f"{m['linear_mb']:.0f}",
            f"{m['all_mb']:.0f}",
            f"{m['resident_growth_mb']:.0f}",
            f"{m['texts_per_second_to_float32']:.2g}",
            spread([run["zero_shot"] for run in m["runs"]]),
            spread([run["verbalizer"] for run in m["runs"]]),
        ]
        for way, m in ways.items()
    ]
    heads = ["`--quantize`", "linear layers, MiB", "all weights, MiB", "resident, MiB", "texts/s to float32"]
    note = "Accuracy: mean ± standard deviation over seeds, the same test texts."
    return markdown_table([*heads, "zero-shot", "learned verbalizer"], rows, "lr", note)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--ways", nargs="+", choices=QUANTIZED, default=list(QUANTIZED), help="(default: all)")
    parser.add_argument("--model_name", default="{cache}/models/gemma-3-270m", metavar="MODEL", help="(the demo's)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="(default: 1 2 3)")
    parser.add_argument("--k_shot", type=int, default=32, metavar="N", help="per class, of all clients (32)")
    parser.add_argument("--n_test", type=int, default=200, metavar="N", help="test texts (200)")
    parser.add_argument("--turns", type=int, default=5, metavar="N", help="of the measurement of speed (5)")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="JSON; ways in it are not made again"
    )
    add_manners(parser)
    args = parse(parser, argv)
    return command_line.run(lambda: run(args), args.debug)


if __name__ == "__main__":
    sys.exit(main())
