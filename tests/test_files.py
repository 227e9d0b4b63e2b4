"""Files and folders appear whole, or those before them stay."""

from pathlib import Path

import pytest

from flaretune.files import atomic_folder, atomic_write


@pytest.mark.parametrize(("contents", "raw"), [("é\n", b"\xc3\xa9\n"), (b"\x00\xff", b"\x00\xff")])
def test_a_file_of_text_or_bytes_takes_the_place_of_another(tmp_path, contents, raw):
    (tmp_path / "file").write_text("before")
    atomic_write(tmp_path / "file", contents)
    assert (tmp_path / "file").read_bytes() == raw
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_leaves_the_former(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("before")

    def half(path, data):
        path.open("wb").write(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(tmp_path / "file", "after")
    assert (tmp_path / "file").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("durable", [False, True])
def test_a_folder_takes_the_place_of_another(tmp_path, durable):
    for text in ("first", "second"):
        with atomic_folder(tmp_path / "made" / "folder", durable=durable) as folder:
            (folder / "below").mkdir()
            (folder / "below" / text).write_text(text)
            assert not (tmp_path / "made" / "folder" / "below" / text).exists()
    assert [path.name for path in (tmp_path / "made" / "folder" / "below").iterdir()] == ["second"]
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["folder"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_that_is_not_finished_leaves_the_former(tmp_path, error):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "before").touch()

    def begin():
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "half").touch()
            raise error

    with pytest.raises(error):
        begin()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "before"]


def test_what_a_killed_process_has_left_does_not_get_in(tmp_path):
    (tmp_path / "folder.partial").mkdir()
    (tmp_path / "folder.partial" / "half").touch()
    (tmp_path / "folder.old").mkdir()
    (tmp_path / "folder.old" / "older").touch()
    (tmp_path / "folder").mkdir()
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "new").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "new"]
