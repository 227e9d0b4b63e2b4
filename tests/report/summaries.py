"""A made-up run: two sites, two rounds."""

from __future__ import annotations

from typing import Any

from flaretune.report.run_record import RoundRecord, summary

SITES = ["hospital-a", "site-2"]


def records() -> list[RoundRecord]:
    return [
        RoundRecord(0, 0.5, 0.52, 0.9, None, 1.0, 40.0, 38.0, SITES, 1000.0, 3000.0),
        RoundRecord(1, 0.6, 0.75, 0.6, 0.7, 0.9, 20.0, 0.5, SITES, 4000.0, 4200.0, 82, 2624),
        RoundRecord(2, 0.7, 0.65, 0.7, 0.6, 0.8, 22.0, 0.8, SITES[:1], 5000.0, 4300.0, 41, 1312),
    ]


def a_summary(**changes: Any) -> dict[str, Any]:
    values = summary(
        records(),
        best_round=1,
        zero_shot=0.55,
        seconds=82.04,
        artifact="best_prompt.safetensors",
        task="movie_reviews",
        metric="accuracy",
        model={"name": "m", "kind": "causal", "hidden_size": 8},
        sites=SITES,
    )
    return {**values, **changes}
