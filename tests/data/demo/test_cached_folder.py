"""Folders appear whole or not at all."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flaretune.data.demo import cached_folder
from flaretune.errors import UserError
from tests.data.demo.made_up_packages import files_below


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
    assert {path.name for path in tmp_path.iterdir()} == {"notes", ".notes.lock"}


def test_who_comes_second_waits_and_finds_it_made(tmp_path: Path) -> None:
    begun, go_on, made = threading.Event(), threading.Event(), []

    def make_slowly(folder: Path, scratch: Path) -> dict[str, str]:
        begun.set()
        assert go_on.wait(60)
        made.append(folder)
        return make_note(folder, scratch)

    threads = [
        threading.Thread(target=cached_folder.install, args=(tmp_path / "notes", {"a": 1}, make_slowly))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert len(made) == 1
    assert files_below(tmp_path / "notes") == ["note", "source.json"]


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
    assert [path.name for path in tmp_path.iterdir()] == [".notes.lock"]


def test_file_in_the_way_of_the_cache_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match="set FLARETUNE_CACHE"):
        cached_folder.install(tmp_path / "cache" / "notes", {}, make_note)


def test_leftovers_of_a_killed_run_go_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "notes.partial" / ".scratch").mkdir(parents=True)
    (tmp_path / "notes.partial" / "half").touch()
    cached_folder.install(tmp_path / "notes", {}, make_note)
    assert files_below(tmp_path / "notes") == ["note", "source.json"]
    assert not (tmp_path / "notes.partial").exists()
