"""bfloat16 against float32 on the demo's model: does the ranking of candidates survive, and what does it save?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flaretune.cache import cache_dir
from flaretune.data.load import Examples, load_split
from flaretune.data.shares import few_shot
from flaretune.methods.fedbpt.objective import loss
from flaretune.models.prompt_settings import PromptSettings
from flaretune.models.prompted import open_prompted_model
from flaretune.seeding import derive_seed
from flaretune.tasks.spec import TaskSpec, load_task
from measurements.timing import seconds_of

TASK, MODEL = "movie_reviews", "gemma-3-270m"
SETTINGS = PromptSettings(
    n_prompt_tokens=5, intrinsic_dim=100, cat_or_add="add", prompt_position="suffix", init_prompt="auto",
    alpha=2.0, sigma=1.0, seed=1, zero_lm_bias=1,
)  # fmt: skip
SCALES = (1.0, 0.1)  # of the population: as in the first round, and as late in a search


def compare_dtypes(device: str = "auto", n_candidates: int = 40) -> tuple[dict[str, Any] | None, str | None]:
    """Fitness (cross entropy) of one population on the same 32 texts, in both number formats.

    Args:
        device: the option of this name.
        n_candidates: the population.

    Returns:
        For each step size (``scales``) Spearman's rank correlation, the standard deviation of the fitness over the
        population, the mean error of bfloat16 and the ratio of times; and None. Or None and the reason, where the
        demo's model or sentences were not fetched.
    """
    model = cache_dir() / "models" / MODEL
    for folder in (model, cache_dir() / "data" / TASK):
        if not folder.is_dir():
            return None, f"not measured: {folder} is not there; `python -m flaretune fetch` fetches it"
    spec = load_task(TASK)
    train = load_split(spec, "train")
    examples = train.take(few_shot(train.labels, 16, spec.label_values, seed=1)[0])
    rng = np.random.default_rng(derive_seed(SETTINGS.seed, "bench", "precision"))
    points = [scale * rng.standard_normal((n_candidates, SETTINGS.intrinsic_dim)) for scale in SCALES]
    exact, fast = (_losses(spec, model, dtype, device, examples, points) for dtype in ("float32", "bfloat16"))
    scales = {}
    for i, scale in enumerate(SCALES):
        (exact_losses, exact_seconds), (fast_losses, fast_seconds) = exact[i], fast[i]
        scales[f"sigma {scale:g}"] = {
            "rank_correlation": round(rank_correlation(exact_losses, fast_losses), 4),
            "loss_spread": float(f"{exact_losses.std():.3g}"),
            "loss_error": float(f"{np.abs(fast_losses - exact_losses).mean():.3g}"),
            "float32_over_bfloat16_seconds": round(exact_seconds / fast_seconds, 2),
        }
    return {"model": MODEL, "candidates": n_candidates, "texts": len(examples), "scales": scales}, None


def _losses(
    spec: TaskSpec, model: Path, dtype: str, device: str, examples: Examples, points: list[np.ndarray]
) -> list[tuple[np.ndarray, float]]:
    """Cross entropy of each candidate, shape (λ,), and the seconds it took, for each population."""
    prompted = open_prompted_model(spec, str(model), SETTINGS, dtype=dtype, device=device, cache_mb=1024)
    texts = prompted.register(examples)
    found = []
    for population in points:
        logits = prompted.black_box.label_logits(population, texts)  # once untimed: a first pass takes longer
        seconds = seconds_of(partial(prompted.black_box.label_logits, population, texts), prompted.pretrained.device)
        found.append((loss("ce", logits, examples.labels), seconds))
    return found


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, of two vectors without ties: the correlation of the ranks."""
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])
