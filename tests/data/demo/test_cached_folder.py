"""Folders appear whole or not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tests.data.demo.made_up_packages import files_below

from flaretune.data.demo import cached_folder
from flaretune.errors import UserError


def make_note(folder: Path, scratch: Path) -> dict[str, str]:
    (folder / "note").write_text("text")
    return {}


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "note").unlink(),
        lambda folder: (folder / "note").write_text("tex"),
        lambda folder: (folder / cached_folder.MARKER).unlink(),
        lambda folder: (folder / cached_folder.MARKER).write_text("[1]"),
        lambda folder: (folder / cached_folder.MARKER).write_text("{"),
    ],
)
def test_damaged_folder_is_made_again(tmp_path: Path, damage) -> None:
    target = cached_folder.install(tmp_path / "notes", {"a": 1}, make_note)
    damage(target)
    cached_folder.install(target, {"a": 1}, make_note)
    assert (target / "note").read_text() == "text"
    assert cached_folder.is_complete(target, {"a": 1})
    assert not cached_folder.is_complete(target, {"a": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_faster_process_wins(tmp_path: Path) -> None:
    def build_while_another_does(folder: Path, scratch: Path) -> dict[str, str]:
        cached_folder.install(tmp_path / "notes", {"a": 1}, make_note)
        (folder / "late").write_text("late")
        return {}

    cached_folder.install(tmp_path / "notes", {"a": 1}, build_while_another_does)
    assert files_below(tmp_path) == ["notes/note", "notes/source.json"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "the disk is full at .*: make room"),
        (
            RuntimeError("I/O error: No space left on device (os error 28)"),
            "the disk is full at .*: make room",
        ),
        (PermissionError(13, "Permission denied"), r"cannot write to .* \(Permission denied\)"),
    ],
)
def test_failing_disk_is_one_sentence(tmp_path: Path, error: Exception, message: str) -> None:
    def fail(folder: Path, scratch: Path) -> dict[str, str]:
        (folder / "half").write_text("half")
        raise error

    with pytest.raises(UserError, match=message):
        cached_folder.install(tmp_path / "notes", {}, fail)
    assert list(tmp_path.iterdir()) == []


def test_file_in_the_way_of_the_cache_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match="set FLARETUNE_CACHE"):
        cached_folder.install(tmp_path / "cache" / "notes", {}, make_note)


def test_only_old_leftovers_of_killed_runs_are_removed(tmp_path: Path) -> None:
    long_ago = time.time() - 2 * cached_folder.ABANDONED_SECONDS
    for name, changed in (
        (".notes-a.partial", long_ago),
        (".notes-b.partial", None),
        (".x-c.partial", long_ago),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        os.utime(tmp_path / name, None if changed is None else (changed, changed))
    cached_folder.install(tmp_path / "notes", {}, make_note)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".notes-b.partial", ".x-c.partial", "notes"]
