"""Which mean makes a prior: accuracy of the model and its template alone, with a preference divided out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markdown_table import markdown_table

from flaretune.cache import cache_dir
from flaretune.data.load import Examples, load_split
from flaretune.data.shares import few_shot
from flaretune.errors import UserError
from flaretune.models.prompted import open_prompted_model
from flaretune.seeding import derive_seed
from flaretune.softmax import log_softmax
from flaretune.tasks.spec import load_task
from measurements.machine import circumstances
from measurements.precision import MODEL, SETTINGS

TASKS = ("movie_reviews", "jobs/tutorial/product_reviews.toml")
SEEDS = (1, 2, 3)
N_TEXTS = 128  # at all clients, training and validation texts, as many of each class
N_TEST = 400


def log_priors(log_probs: np.ndarray) -> dict[str, np.ndarray]:
    """What is subtracted from the log-probabilities, by name.

    Args:
        log_probs: of the classes, float (N, C), of the texts that the prior is made from.

    Returns:
        float (C,) each. The median is one of each class, after a text's mean over the classes has been subtracted:
        with two classes the median of the log-odds.
    """
    return {
        "none": np.zeros(log_probs.shape[1]),
        "arithmetic mean": np.log(np.exp(log_probs).mean(axis=0)),
        "geometric mean": log_probs.mean(axis=0),
        "median of log-odds": np.median(log_probs - log_probs.mean(axis=1, keepdims=True), axis=0),
    }


def calibration(tasks: Sequence[str] = TASKS, dtype: str = "float32", device: str = "auto") -> dict[str, Any]:
    """Accuracy on test texts by prior, with no label used but to draw the texts.

    Args:
        tasks: names or files of tasks, or NAME=DATASET for another source of its texts (`--dataset`).
        dtype, device: the options of these names.

    Returns:
        What `measure.py calibration --json` prints: under ``tasks`` the accuracy of each seed by prior.

    Raises:
        UserError: the demo's model or a task's texts are not there.
    """
    model = cache_dir() / "models" / MODEL
    if not model.is_dir():
        raise UserError(f"{model} is not there; `python -m flaretune fetch` fetches it")
    found = {}
    for task in tasks:
        name, _, dataset = task.partition("=")
        spec = load_task(name)
        prompted = open_prompted_model(spec, str(model), SETTINGS, dtype=dtype, device=device)

        def log_probs(examples: Examples, prompted=prompted) -> np.ndarray:
            return log_softmax(prompted.zero_shot_logits(examples))

        train, test = (load_split(spec, split, dataset or None) for split in ("train", "test"))
        order = np.random.default_rng(derive_seed(0, "bench", "calibration")).permutation(len(test))
        test = test.take(np.sort(order[:N_TEST]))
        of_test, per_class = log_probs(test), N_TEXTS // (2 * spec.n_classes)
        accuracy: dict[str, list[float]] = {}
        for seed in SEEDS:
            drawn = few_shot(train.labels, per_class, spec.label_values, derive_seed(seed, "few-shot"))
            for prior, subtracted in log_priors(log_probs(train.take(np.concatenate(drawn)))).items():
                correct = (of_test - subtracted).argmax(axis=1) == test.labels
                accuracy.setdefault(prior, []).append(round(float(correct.mean()), 4))
        found[spec.name] = {"classes": spec.n_classes, "test_texts": len(test), "accuracy": accuracy}
    about = {"model": MODEL, "dtype": dtype, "texts": N_TEXTS, "seeds": list(SEEDS)}
    return {"tasks": found, **about, **circumstances()}


def calibration_table(result: Mapping[str, Any]) -> str:
    """What `calibration` gave as a table in Markdown."""
    heads = ["prior", *(f"{name}, {task['classes']} classes" for name, task in result["tasks"].items())]
    accuracies = [task["accuracy"] for task in result["tasks"].values()]
    rows = [
        [prior, *(f"{np.mean(a[prior]):.3f} ± {np.std(a[prior], ddof=1):.3f}" for a in accuracies)]
        for prior in accuracies[0]
    ]
    note = (
        f"Accuracy of {result['model']} ({result['dtype']}) and template alone on at most {N_TEST} test texts: mean ± "
        f"sample standard deviation over {len(result['seeds'])} draws of the {result['texts']} texts that the prior is "
        f"made from; {result['date']}."
    )
    return markdown_table(heads, rows, "lr", note)
