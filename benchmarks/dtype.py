"""bfloat16 against float32 on the demo's model: does the ranking of candidates survive, and what does it save?

    python benchmarks/dtype.py --json benchmarks/dtype.json

Evaluates one population of candidates in both number formats on the same texts, in one process: the ratio of times
holds for the machine it ran on, the rank correlation for the model.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch

from flaretune.cache import cache_dir
from flaretune.data.fewshot import few_shot
from flaretune.data.load import load_split
from flaretune.fedbpt.objective import loss
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import open_prompted_model
from flaretune.report.run_record import versions
from flaretune.tasks.spec import load_task

SETTINGS = PromptSettings(
    n_prompt_tokens=5, intrinsic_dim=100, cat_or_add="add", prompt_position="suffix", init_prompt="auto",
    alpha=2.0, sigma=1.0, seed=1, zero_lm_bias=1,
)  # fmt: skip


def losses(dtype: str, points: np.ndarray, model: str, repeats: int) -> tuple[np.ndarray, float]:
    """Cross entropy of each candidate, shape (λ,), and the seconds of the fastest of several evaluations."""
    spec = load_task("movie_reviews")
    prompted = open_prompted_model(spec, model, SETTINGS, dtype=dtype, device="auto", cache_mb=1024)
    train = load_split(spec, "train")
    examples = train.take(few_shot(train.labels, 16, spec.n_classes, seed=1)[0])
    texts = prompted.register(examples)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        logits = prompted.black_box.label_logits(points, texts)
        seconds.append(time.perf_counter() - started)
    return loss("ce", logits, examples.labels), min(seconds)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's: the correlation of the ranks (no ties among real losses)."""
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(cache_dir() / "models" / "gemma-3-270m"))
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    result = {"candidates": arguments.candidates, "texts": 32, "steps": {}}
    # around the start, as in the first round, and in a narrow population, as late in a search
    for name, scale in (("sigma 1", 1.0), ("sigma 0.1", 0.1)):
        points = scale * rng.standard_normal((arguments.candidates, SETTINGS.intrinsic_dim))
        (exact, exact_seconds), (fast, fast_seconds) = (
            losses(dtype, points, arguments.model, arguments.repeats) for dtype in ("float32", "bfloat16")
        )
        result["steps"][name] = {
            "rank_correlation": round(rank_correlation(exact, fast), 4),
            "loss_spread": float(f"{exact.std():.3g}"),
            "loss_error": float(f"{np.abs(fast - exact).mean():.3g}"),
            "float32_over_bfloat16_seconds": round(exact_seconds / fast_seconds, 2),
        }
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    result |= {"device": device, "date": date.today().isoformat(), "versions": versions()}
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
