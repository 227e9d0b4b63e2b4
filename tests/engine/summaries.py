"""Made-up runs of both methods: two clients, two rounds."""

from __future__ import annotations

from typing import Any

from flaretune.engine.records import RoundRecord
from flaretune.engine.summary import summary
from flaretune.tasks.metrics.base import Estimate

CLIENTS = ["hospital-a", "site-2"]
ZERO_SHOT = Estimate(0.55, 0.025)

# What the rounds of both runs have in common.
_ROUNDS: list[dict[str, Any]] = [
    {
        "round": 0,
        "accuracy": 0.5,
        "standard_error": 0.0249,
        "validation_accuracy": 0.52,
        "validation_standard_error": 0.0612,
        "validation_loss": 0.9,
        "seconds": 40.0,
        "overhead_seconds": 38.0,
        "clients": CLIENTS,
        "bytes_down": 1000.0,
        "bytes_up": 3000.0,
        "queries": 0,
        "example_forwards": 0,
        "memory_mb": 900.5,
    },
    {
        "round": 1,
        "accuracy": 0.6,
        "standard_error": 0.0244,
        "validation_accuracy": 0.75,
        "validation_standard_error": 0.0531,
        "validation_loss": 0.6,
        "seconds": 20.0,
        "overhead_seconds": 0.5,
        "clients": CLIENTS,
        "bytes_down": 4000.0,
        "bytes_up": 4200.0,
        "queries": 82,
        "example_forwards": 2624,
        "memory_mb": 1100.25,
    },
    {
        "round": 2,
        "accuracy": 0.7,
        "standard_error": 0.0229,
        "validation_accuracy": 0.65,
        "validation_standard_error": 0.0585,
        "validation_loss": 0.7,
        "seconds": 22.0,
        "overhead_seconds": 0.8,
        "clients": CLIENTS[:1],
        "bytes_down": 5000.0,
        "bytes_up": 4300.0,
        "queries": 41,
        "example_forwards": 1312,
        "memory_mb": 1000.0,
    },
]
_COMMON = {
    "task": "movie_reviews",
    "metric": "accuracy",
    "metric_title": "accuracy",
    "model": {"name": "m", "kind": "causal", "hidden_size": 8},
    "clients": CLIENTS,
}


def search_records() -> list[RoundRecord]:
    found = [{"sigma": 1.0}, {"fitness": 0.7, "sigma": 0.9}, {"fitness": 0.6, "sigma": 0.8}]
    return [RoundRecord(**common, metrics=own) for common, own in zip(_ROUNDS, found, strict=True)]


def train_records() -> list[RoundRecord]:
    trained: list[dict[str, Any]] = [
        {"labelled": 0, "soft_labelled": 0},
        {"train_loss": 0.65, "labelled": 24, "soft_labelled": 0},
        {"train_loss": 0.4, "labelled": 12, "soft_labelled": 32, "soft_label_agreement": 0.875},
    ]
    records = [RoundRecord(**common, metrics=own) for common, own in zip(_ROUNDS, trained, strict=True)]
    records[1].client_metrics = {"train_loss": {"hospital-a": 0.6, "site-2": 0.7}}
    return records


def a_summary(**changes: Any) -> dict[str, Any]:
    """Of a run of FedBPT."""
    own = {"method": "FedBPT", "artifact": "best_prompt.safetensors", "artifact_kind": "prompt"}
    values = summary(search_records(), best_round=1, zero_shot=ZERO_SHOT, seconds=82.04, **own, **_COMMON)
    return {**values, **changes}


def a_training_summary(**changes: Any) -> dict[str, Any]:
    """Of a run of LP-FL."""
    own = {"method": "LP-FL", "artifact": "best_adapter", "artifact_kind": "adapter"}
    last = {"labelled": 12, "soft_labelled": 32, "soft_label_agreement": 0.875, "trained_parameters": 368640}
    values = summary(train_records(), best_round=1, zero_shot=ZERO_SHOT, seconds=82.04, **own, **_COMMON, **last)
    return {**values, **changes}
