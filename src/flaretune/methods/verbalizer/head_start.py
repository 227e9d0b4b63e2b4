"""How the server begins to make heads: with the words that the clients' models name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flaretune.aggregation.base import AggregationRule
from flaretune.methods.exchanged import InitializeResult
from flaretune.methods.verbalizer.head import Head, label_word_head
from flaretune.methods.verbalizer.head_fit import HeadFit, HeadSettings
from flaretune.methods.verbalizer.settings import NEUTRAL


def start_head_fit(
    results: Mapping[str, InitializeResult],
    rule: AggregationRule,
    n_words: int,
    noise: float = 0.0,
    prompt: bool = False,
) -> tuple[HeadFit, dict[int, str]]:
    """What makes heads, and the texts of the words.

    Args:
        results: of the clients, by name; their settings are those of `Vocabulary.settings`.
        rule: of the job.
        n_words, noise, prompt: see `HeadSettings`.
    """
    first = next(iter(results.values()))
    settings, n_classes = first.settings, len(first.settings["task"]["label_values"])
    candidates, texts = most_named([result.settings["candidates"] for result in results.values()])
    return (
        HeadFit(
            HeadSettings(
                candidates,
                neutral_of(settings["candidates"], first.arrays[NEUTRAL], candidates),
                settings["verbalizer"]["label_ids"],
                n_words,
                n_classes,
                most=settings["options"]["k_shot"] * n_classes,
                leave_one_out=not any(result.evaluation.n_validation for result in results.values()),
                noise=noise,
                prompt=prompt,
            ),
            rule,
        ),
        texts,
    )


def start_head(settings: Mapping[str, Any]) -> Head:
    """The label words alone."""
    return label_word_head(settings["verbalizer"]["label_ids"], len(settings["task"]["label_values"]))


def most_named(named: Sequence[Sequence[Sequence[Any]]]) -> tuple[np.ndarray, dict[int, str]]:
    """As many candidates as the first client names, those that most clients name; and the texts of all.

    Args:
        named: of each client, pairs of a token id and its text.

    Returns:
        Token ids, int64, in the order of how many clients name them and then of the first naming; texts by id.
    """
    texts: dict[int, str] = {}
    times: Counter[int] = Counter()
    for pairs in named:
        for token, text in pairs:
            texts.setdefault(token, text)
            times[token] += 1
    order = sorted(texts, key=lambda token: -times[token])  # stable
    return np.array(order[: len(named[0])], dtype=np.int64), texts


def neutral_of(named: Sequence[Sequence[Any]], neutral: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """What a client's model says of candidates behind neutral texts, float32 (T, V); its mean for words it has not.

    Args:
        named: the client's candidates, pairs of a token id and its text.
        neutral: of each of them, float32 (T, number of them).
        wanted: token ids, int64 (V,).
    """
    place, mean = {token: i for i, (token, _) in enumerate(named)}, neutral.mean(axis=1)
    return np.stack([neutral[:, place[t]] if t in place else mean for t in wanted.tolist()], axis=1)
