"""Reports of made-up runs, and what an HTML parser reads in them."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from flaretune.engine.report import write_report
from flaretune.engine.results import read_summary

VOID = {"meta", "link", "br", "img", "hr", "input"}
NASTY = '<script>alert("é")</script>'


class Page(HTMLParser):
    """What a page says.

    Attributes:
        tables: by id, the texts of the cells of every row; of those without an id, by the label of their box.
        text: all of it, without tables' bounds.
        images: addresses.
        tags: names of all elements.
    """

    def __init__(self, html: str):
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.images: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self._label, self._texts, self._rows = "", [], []
        self.feed(html)
        assert not self._open  # every element is closed
        self.text = " ".join("".join(self._texts).split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert not {"src", "href", "srcset", "action", "data"} & set(attrs) or attrs["src"].startswith("data:")
        assert not [name for name in attrs if name.startswith("on")]
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        self._label = attrs.get("aria-label", self._label)
        if tag == "table":
            self._rows = self.tables[attrs.get("id", self._label)] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        elif tag == "img":
            self.images.append(attrs["src"])

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            assert "url(" not in data
            assert "@import" not in data
            return
        self._texts.append(data)
        if {"td", "th"} & set(self._open):
            self._rows[-1][-1] = " ".join((self._rows[-1][-1] + data).split())


def page_of(run: Path, evaluation: dict[str, Any] | None = None) -> Page:
    write_report(run, read_summary(run), run / "report.html", evaluation)
    return Page((run / "report.html").read_text(encoding="utf-8"))


def a_run(folder: Path, summary: dict[str, Any], config: dict[str, Any] | None = None) -> Path:
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config or {}), encoding="utf-8")
    return folder


def an_evaluation(labels: list[Any], confusion: list[list[int]], **changes: Any) -> dict[str, Any]:
    counts = np.array(confusion)
    n, hits = int(counts.sum()), int(counts.trace())
    found = {"metric": "accuracy", "value": hits / n, "standard_error": 0.125, "n": n, "confusion": confusion}
    bins = [
        {"from": 0.5, "to": 0.6, "n": n - 4, "confidence": 0.55, "correct": 0.4},
        {"from": 0.9, "to": 1.0, "n": 4, "confidence": 0.96, "correct": 1.0},
    ]
    words = [f"word {number}" for number in range(len(labels))]
    about = {"task": "movie_reviews", "result": "p.safetensors", "data": "test.csv"}
    about |= {"label_values": labels, "words": words}
    return {**about, "prompt": {**found, "reliability": bins}, **changes}
