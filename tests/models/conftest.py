from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def checkpoint(tiny, tmp_path):
    """``checkpoint(family)`` is a copy of a tiny model to do harm to; ``without`` names files to leave out."""

    def copy(family, *without):
        folder = tmp_path / family
        shutil.copytree(tiny(family), folder, ignore=shutil.ignore_patterns(*without))
        return folder

    return copy
