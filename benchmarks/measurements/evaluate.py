"""How fast a client evaluates a generation of FedBPT's search, against the published code's way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from markdown_table import markdown_table

from flaretune.errors import UserError
from flaretune.models.device import DTYPES, resolve_device, resolve_dtype
from flaretune.seeding import derive_seed
from measurements.examples import perturbed_examples, random_examples
from measurements.machine import circumstances
from measurements.random_model import random_model, random_prompt
from measurements.shapes import Shape, find_shapes
from measurements.steps import Generation, steps_of, timer, work_of
from measurements.timing import matrix_rate, take_turns
from measurements.work import Counting

SHAPES_OF_ALL = ("roberta-base", "roberta-large", "llama")
SHAPES_IN_SHORT = ("roberta-base", "llama")


@dataclass(frozen=True)
class EvaluateSettings:
    """What is measured; the defaults are the published example's.

    Attributes:
        n_candidates: λ.
        n_examples: N, of one client.
        intrinsic_dim: d.
        local_iter: I, the generations in a round.
        n_prompt_tokens: n; 0: the shape's own.
        batch_size, cache_mb: the options of these names.
        perturb: 1: also ask with perturbed texts, which are registered anew each round.
        dtype: the option of this name: what all but the published way compute in.
        all_steps: also measure what each step brought; without, only the first and the last way.
        repeats: measurements, of which the median counts.
        seed: of weights, texts and search points.
    """

    n_candidates: int = 5
    n_examples: int = 32
    intrinsic_dim: int = 500
    local_iter: int = 8
    n_prompt_tokens: int = 0
    batch_size: int = 0
    cache_mb: int = 1024
    perturb: int = 0
    dtype: str = "auto"
    all_steps: bool = True
    repeats: int = 3
    seed: int = 1

    def __post_init__(self) -> None:
        at_least_one = ("n_candidates", "n_examples", "intrinsic_dim", "local_iter", "repeats")
        for field in fields(self):
            value, least = getattr(self, field.name), int(field.name in at_least_one)
            if isinstance(value, int) and value < least:
                raise UserError(f"--{field.name} {value}: must be at least {least}")


IN_SHORT = EvaluateSettings(n_examples=8, repeats=1)  # of the same table, in minutes on two cores


def evaluate(
    shapes: Sequence[str] = SHAPES_OF_ALL,
    settings: EvaluateSettings | None = None,
    *,
    device: str = "auto",
    real_model: bool = True,
) -> dict[str, Any]:
    """Measure shape by shape.

    Args:
        shapes: names of `shapes.SHAPES`; the ratios are those of the first masked and the first causal one.
        settings: what is measured.
        device: the option of this name.
        real_model: also compare bfloat16 with float32 on the demo's model (see `precision`).

    Returns:
        What `measure.py evaluate --json` prints, as plain JSON values.

    Raises:
        UserError: an unknown shape or number format, an absent device, or a prompt that does not fit a shape.
    """
    settings, where, chosen = settings or EvaluateSettings(), resolve_device(device), find_shapes(shapes)
    settings = replace(settings, dtype=resolve_dtype(settings.dtype, where))
    number_format = DTYPES[settings.dtype]
    found: dict[str, dict[str, Any]] = {}
    ratios: dict[str, float] = {}
    rate = matrix_rate(where, number_format)
    for shape in chosen:
        found[shape.name] = measure(shape, settings, where)
        ratios.setdefault(shape.kind, found[shape.name]["ratio"])
        # again and again, for what else runs on the machine slows it
        rate = max(rate, matrix_rate(where, number_format))
    for shape in found.values():
        for row in (shape["baseline"], shape["ours"], *shape["steps"]):
            row["mfu"] = digits(row["model_gflops"] * 1e9 / row["seconds"] / rate)
    details, note = None, "not measured: it was not asked for"
    if real_model and settings.dtype == "float32":
        note = "not measured: nothing is computed in bfloat16 here"
    elif real_model:
        from measurements.precision import compare_dtypes

        details, note = compare_dtypes(device)
    return {
        "ratio_masked": ratios.get("masked"),
        "ratio_causal": ratios.get("causal"),
        "rank_correlation": details and min(scale["rank_correlation"] for scale in details["scales"].values()),
        "rank_correlation_note": note,
        "precision": details,
        "shapes": {name: {k: v for k, v in values.items() if k != "steps"} for name, values in found.items()},
        "steps": {name: values["steps"] for name, values in found.items()},
        "settings": asdict(settings),
        "matrix_tflops": digits(rate / 1e12),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "device": name_of(where),
        **circumstances(),
    }


def measure(shape: Shape, settings: EvaluateSettings, device: torch.device) -> dict[str, Any]:
    """Measure one shape, `settings` with a number format other than ``auto``.

    Returns:
        ``ratio`` of the example-forwards a second, ``baseline`` and ``ours``, every step in between in ``steps``,
        and what describes the shape; `evaluate` adds the utilisation (``mfu``).
    """
    model = random_model(shape, device, settings.seed)
    asked = generation_for(model, shape, settings)
    prompt = random_prompt(model, asked.n_prompt, settings.intrinsic_dim, settings.seed)
    steps = steps_of(
        model,
        shape.kind,
        prompt,
        dtype=DTYPES[settings.dtype],
        batch_size=settings.batch_size,
        cache_mb=settings.cache_mb,
        all_steps=settings.all_steps,
    )
    timers, answers = zip(*(timer(step, asked, device) for step in steps), strict=True)
    seconds = take_turns(timers, settings.repeats)
    counting = Counting(model, shape.kind)
    rows: list[dict[str, Any]] = []
    for step, taken, before in zip(steps, seconds, [seconds[0], *seconds], strict=False):
        work, computed_tokens = work_of(step, asked, counting)
        rows.append(
            {
                "step": step.name,
                "seconds": digits(taken),
                "example_forwards_per_second": digits(asked.example_forwards / taken),
                "times_baseline": digits(seconds[0] / taken),
                "times_step_before": digits(before / taken),
                "useful_tokens": round(work.tokens),
                "computed_tokens": round(computed_tokens),
                "model_gflops": digits(work.flops / 1e9),
            }
        )
    ends = [{k: v for k, v in row.items() if not k.startswith(("step", "times"))} for row in (rows[0], rows[-1])]
    return {
        "kind": shape.kind,
        "ratio": rows[-1]["times_baseline"],
        "baseline": ends[0],
        "ours": ends[1],
        "n_prompt_tokens": asked.n_prompt,
        "matrix_entries": counting.matrix_entries,
        "largest_logit": digits(float(np.abs(answers[0]).max())),
        "largest_logit_difference": digits(float(np.abs(answers[-1] - answers[0]).max())),
        "repeats": settings.repeats,
        "steps": rows,
    }


def generation_for(model: torch.nn.Module, shape: Shape, settings: EvaluateSettings) -> Generation:
    """Random examples and search points for a model.

    Raises:
        UserError: prompt and text are longer than the model's positions.
    """
    n_prompt, vocabulary = settings.n_prompt_tokens or shape.n_prompt_tokens, model.config.vocab_size
    examples = random_examples(shape.kind, vocabulary, settings.n_examples, n_prompt, settings.seed)
    longest = max(len(e.ids) for e in examples) + (n_prompt if shape.kind == "causal" else 0)
    # RoBERTa's table starts behind the padding index
    limit = model.config.max_position_embeddings - (model.config.pad_token_id + 1 if shape.kind == "masked" else 0)
    if longest > limit:
        raise UserError(
            f"--n_prompt_tokens {n_prompt}: with the longest text that makes {longest} tokens, and shape "
            f"{shape.name!r} has {limit} positions; use a shorter prompt"
        )
    rng = np.random.default_rng(derive_seed(settings.seed, "bench", "points"))
    return Generation(
        points=rng.standard_normal((settings.n_candidates, settings.intrinsic_dim)),
        examples=examples,
        perturbed=perturbed_examples(examples, vocabulary, settings.seed) if settings.perturb else None,
        local_iter=settings.local_iter,
        n_prompt=n_prompt,
    )


def name_of(device: torch.device) -> str:
    """The GPU's name, or the CPU's threads."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def digits(value: float, n: int = 4) -> float:
    """With so many of them."""
    return float(f"{value:.{n}g}")


def evaluate_table(result: Mapping[str, Any]) -> str:
    """What `evaluate` gave as a table in Markdown, a line for each step of each shape."""
    heads = ["shape", "step", "example-forwards/s", "× baseline", "× step before", "padding", "MFU"]
    lines = []
    for shape, steps in result["steps"].items():
        for row in steps:
            padding = 1 - row["useful_tokens"] / row["computed_tokens"]
            numbers = [row["example_forwards_per_second"], row["times_baseline"], row["times_step_before"]]
            cells = [f"{number:,.3g}" if number < 1000 else f"{number:,.0f}" for number in numbers]
            lines.append([shape, row["step"], *cells, f"{padding:.0%}", f"{row['mfu']:.1%}"])
    settings = result["settings"]
    correlation = result["rank_correlation"]
    ranks = result["rank_correlation_note"] if correlation is None else f"{correlation:.4f}"
    note = (
        f"{settings['n_candidates']} candidates × {settings['n_examples']} examples"
        f"{', plain and perturbed' if settings['perturb'] else ''}; median of {settings['repeats']}. MFU: of the "
        f"{result['matrix_tflops']:.3g} TFLOP/s of {settings['dtype']} matrix products here. Rank correlation of "
        f"bfloat16 with float32 fitness on the demo's model: {ranks}. {result['device']} ({result['machine']}), "
        f"{result['date']}."
    )
    return markdown_table(heads, lines, "llr", note)
