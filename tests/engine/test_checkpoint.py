"""What a server keeps of a run, and what it makes of what it finds."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from pyhocon import ConfigFactory

from flaretune.engine.checkpoint import Checkpoint, check_settings, load_checkpoint, save_checkpoint
from flaretune.errors import UserError

SETTINGS = {"options": {"seed": 1, "sigma": 1.0}, "server": {"covariance": "full"}}


def a_checkpoint(round_number: int, artifact: Path | None = None) -> Checkpoint:
    arrays = {"a": np.arange(6.0).reshape(2, 3) + round_number, "b": np.array([1], dtype=np.int64)}
    return Checkpoint("0f", round_number, SETTINGS, {"best": [1, None, "x"]}, arrays, artifact)


@pytest.fixture
def artifacts(tmp_path):
    file, folder = tmp_path / "best.safetensors", tmp_path / "best_adapter"
    file.write_bytes(b"a prompt")
    folder.mkdir()
    (folder / "weights").write_bytes(b"an adapter")
    return {"file": file, "folder": folder, "none": None}


@pytest.mark.parametrize("kind", ["file", "folder", "none"])
def test_it_is_read_as_it_was_written(tmp_path, artifacts, kind):
    assert load_checkpoint(tmp_path / "kept") is None
    save_checkpoint(tmp_path / "kept", a_checkpoint(3, artifacts[kind]))
    found = load_checkpoint(tmp_path / "kept")
    assert (found.run, found.round, found.settings, found.state) == ("0f", 3, SETTINGS, {"best": [1, None, "x"]})
    assert {name: (a.dtype.str, a.tolist()) for name, a in found.arrays.items()} == {
        "a": ("<f8", [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]),
        "b": ("<i8", [1]),
    }
    if kind == "file":
        assert found.artifact.read_bytes() == b"a prompt"
    elif kind == "folder":
        assert (found.artifact / "weights").read_bytes() == b"an adapter"
    else:
        assert found.artifact is None


def test_the_newest_counts_and_the_one_before_is_kept(tmp_path):
    for round_number in (1, 2, 10, 9):
        save_checkpoint(tmp_path, a_checkpoint(round_number))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round_00009", "round_00010"]
    assert load_checkpoint(tmp_path).round == 10


def flip_a_bit(path):
    raw = bytearray((path / "arrays.safetensors").read_bytes())
    raw[-3] ^= 4
    (path / "arrays.safetensors").write_bytes(raw)


def cut_off(path):
    (path / "state.json").write_text((path / "state.json").read_text()[:50])


def edit_state(path):
    said = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**said, "round": 1}))


def other_format(path):
    said = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**said, "format": "flaretune-checkpoint-9"}))


def no_arrays(path):
    (path / "arrays.safetensors").unlink()


def no_object(path):
    (path / "state.json").write_text("[1, 2]")


def edit_artifact(path):
    (path / "artifact").write_bytes(b"another prompt")


@pytest.mark.parametrize("damage", [flip_a_bit, cut_off, edit_state, other_format, no_arrays, no_object, edit_artifact])
def test_the_one_before_is_used_where_the_newest_is_damaged(tmp_path, artifacts, damage, caplog):
    caplog.set_level(logging.WARNING)
    folder = tmp_path / "kept"
    for round_number in (4, 5):
        save_checkpoint(folder, a_checkpoint(round_number, artifacts["file"]))
    damage(folder / "round_00005")
    assert load_checkpoint(folder).round == 4
    assert "round_00005 is damaged or of another version" in caplog.text
    damage(folder / "round_00004")
    with pytest.raises(UserError, match=r"no checkpoint in .*kept can be used: round_00005 .*; round_00004 .*anew"):
        load_checkpoint(folder)


def test_a_folder_that_nvflare_has_cut_at_a_number_sign_is_noticed(tmp_path):
    """`nvflare job create … -f config_fed_server.conf checkpoint=a#b` drops what follows the #."""
    whole = tmp_path / "run#2"
    save_checkpoint(whole, a_checkpoint(1))
    cut = ConfigFactory.parse_string(f"checkpoint={whole}")["checkpoint"]
    assert cut == str(tmp_path / "run")
    with pytest.raises(UserError, match=r"cut off, it seems, as there is .*run#2: NVFlare drops what follows a #"):
        load_checkpoint(Path(cut))
    kept = ConfigFactory.parse_string(f'checkpoint="{whole}"')["checkpoint"]  # as docs/how-to/gpu-box.md says
    assert load_checkpoint(Path(kept)).round == 1
    save_checkpoint(Path(cut), a_checkpoint(3))  # a folder of that very name
    assert load_checkpoint(Path(cut)).round == 3


def test_what_was_cut_off_while_it_was_written_is_no_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, a_checkpoint(1))

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, a_checkpoint(2))
    assert [path.name for path in tmp_path.iterdir()] == ["round_00001"]
    assert load_checkpoint(tmp_path).round == 1


@pytest.mark.parametrize(
    ("part", "key", "value", "sentence"),
    [
        ("options", "seed", 2, "options, seed is 1 there and 2 here"),
        ("options", "new", 0, "options, new is None there and 0 here"),
        ("server", "covariance", "diagonal", "server, covariance is 'full' there and 'diagonal' here"),
    ],
)
def test_other_settings_are_named(tmp_path, part, key, value, sentence):
    check_settings(tmp_path, SETTINGS, SETTINGS)
    with pytest.raises(UserError, match=sentence):
        check_settings(tmp_path, SETTINGS, {**SETTINGS, part: {**SETTINGS[part], key: value}})


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refused(_self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refused)
    with pytest.raises(UserError, match=f"checkpoint {tmp_path}: it cannot be read: Permission denied"):
        load_checkpoint(tmp_path)
