"""Tasks that tests build without a file."""

from __future__ import annotations

from typing import Any

from flaretune.tasks.spec import TaskSpec, parse_task


def review_task(**changes: Any) -> TaskSpec:
    """Sentences, negative (0) or positive (1); ``changes`` replace entries of its task file."""
    entries = {
        "text_columns": ["sentence"],
        "label_column": "label",
        "metric": "accuracy",
        "masked": {"template": "{sentence} . It was {mask} .", "label_words": ["bad", "great"]},
        "causal": {"template": "{sentence} It was", "label_words": [" bad", " great"]},
        "source": {"hub": "owner/reviews", "train": "train", "test": "validation"},
    }
    return parse_task({**entries, **changes}, name="reviews", place="reviews.toml")


def pair_task(**changes: Any) -> TaskSpec:
    """Pairs of sentences with three answers, rows labelled −1 left out, as in SNLI."""
    entries = {
        "text_columns": ["premise", "hypothesis"],
        "label_column": "label",
        "drop_labels": [-1],
        "metric": "accuracy",
        "masked": {"template": "{premise} ? {mask} , {hypothesis}", "label_words": ["Yes", "Maybe", "No"]},
        "causal": {
            "template": "{premise} ? {hypothesis} Answer:",
            "label_words": [" Yes", " Maybe", " No"],
        },
        "source": {"hub": "owner/pairs", "train": "train", "test": "test"},
    }
    return parse_task({**entries, **changes}, name="pairs", place="pairs.toml")
