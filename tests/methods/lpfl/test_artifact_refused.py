"""Folders that are no adapter, or not the one that was saved, are refused with a sentence."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from flaretune.errors import UserError
from flaretune.methods.lpfl.artifact import load_adapter
from tests.methods.lpfl.adapter_files import put_together, with_changes
from tests.methods.lpfl.made_up_adapters import PARTS, an_artifact, same


def test_a_folder_that_is_not_there_or_another_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "absent"):
        with pytest.raises(UserError, match=r"adapter folder .* does not exist; a job leaves it as best_adapter$"):
            load_adapter(place)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no flaretune.json, so it is no adapter of LP-FL; give one that a job"):
        load_adapter(tmp_path)


def test_a_missing_file_is_named(folder):
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(UserError, match=f"has no {file.name}"):
            load_adapter(folder)
        file.write_bytes(content)
    load_adapter(folder)


def test_an_unreadable_file_is_refused(folder, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    for name in ("open", "read_text"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, refuse)
            with pytest.raises(UserError, match="Permission denied"):
                load_adapter(folder)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[1]", b"null"])
@pytest.mark.parametrize("name", ["flaretune.json", "adapter_config.json"])
def test_json_that_cannot_be_read_is_refused(lora, name, raw):
    (lora / name).write_bytes(raw)
    with pytest.raises(UserError, match=rf"{name} is damaged \(.*\); copy the folder anew"):
        load_adapter(lora)


@pytest.mark.parametrize("key", ["format", "sha256", *PARTS])
@pytest.mark.parametrize("value", [None, 5, []])
def test_an_entry_that_is_missing_or_odd_is_noticed(folder, key, value):
    file = folder / "flaretune.json"
    described = json.loads(file.read_text())
    for changed in ({k: v for k, v in described.items() if k != key}, {**described, key: value}):
        file.write_text(json.dumps(changed))
        with pytest.raises(UserError, match=rf"has no '{key}'; copy it anew|its format is .*, not 'flaretune-lpfl-"):
            load_adapter(folder)


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("flaretune.json", '"seed": 42', '"seed": 43'),
        ("flaretune.json", '"some/model"', '"other/model"'),
        ("adapter_config.json", '"lora_alpha": 4.0', '"lora_alpha": 8.0'),
        ("adapter_config.json", '"r": 2', '"r": 2, "use_dora": true'),
    ],
)
def test_an_edit_is_noticed(lora, file, before, after):
    text = (lora / file).read_text()
    assert text.count(before) == 1
    (lora / file).write_text(text.replace(before, after))
    with pytest.raises(UserError, match=r"was damaged or edited: its contents do not have the sha256 noted in flaret"):
        load_adapter(lora)


def test_where_peft_finds_the_model_and_how_files_are_laid_out_may_be_changed(lora):
    config = json.loads((lora / "adapter_config.json").read_text())
    (lora / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "/here"}))
    described = json.loads((lora / "flaretune.json").read_text())
    (lora / "flaretune.json").write_text(json.dumps(dict(reversed(described.items())), indent=8))
    assert same(load_adapter(lora), an_artifact())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": ("F64", [2], bytes(16))}, r"holds no adapter: a is float64 of shape \(2,\), not float32"),
        ({"a": ("F32", [], bytes(4))}, r"a is float32 of shape \(\)"),
        ({"a": ("F32", [1] * 5, bytes(4))}, r"a is float32 of shape \(1, 1, 1, 1, 1\)"),
        ({"a": ("F32", [0, 3], b"")}, r"a is float32 of shape \(0, 3\)"),
        ({"a": ("F32", [1], bytes(4)), "b": ("I32", [1], bytes(4))}, "b is int32"),
        ({"a": ("F32", [1], struct.pack("<f", np.inf))}, "a has entries that are not finite"),
        ({"a": ("F32", [2], struct.pack("<2f", 1, np.nan))}, "a has entries that are not finite"),
        ({"a": ("F32", [3], bytes(4))}, "is damaged or no adapter"),
        ({"a": ("X", [1], bytes(4))}, "is damaged or no adapter"),
        ({}, "there is no array"),
    ],
)
def test_arrays_of_other_formats_are_refused(lora, arrays, message):
    with pytest.raises(UserError, match=message) as refused:
        load_adapter(with_changes(lora, put_together(arrays)))
    assert str(lora / "adapter_model.safetensors") in str(refused.value)


def test_no_format_but_float32_is_taken(lora):
    for dtype, size in (("F16", 2), ("BF16", 2), ("U8", 1), ("BOOL", 1), ("F8_E4M3", 1), ("F8_E5M2", 1)):
        with pytest.raises(UserError, match=r"is damaged or no adapter|holds no adapter"):
            load_adapter(with_changes(lora, put_together({"a": (dtype, [4], bytes(4 * size))})))


def test_a_pickle_is_not_read(lora):
    import pickle

    with pytest.raises(UserError, match="is damaged or no adapter"):
        load_adapter(with_changes(lora, pickle.dumps({"a": np.ones(3)})))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"model": {"name": "m", "kind": "masked"}}, "another version of flaretune .*'hidden_size'"),
        ({"model": {"name": 5, "kind": "masked", "hidden_size": 3}}, "another version of flaretune .*name is 5"),
        ({"task": {}}, "'name'"),
        (
            {"task": {"name": "t", "metrc": 1}},
            "the task in the adapter folder: unknown key 'metrc'; did you mean 'metric'",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(lora, parts, message):
    with pytest.raises(UserError, match=message) as refused:
        load_adapter(with_changes(lora, **parts))
    assert str(lora) in str(refused.value)


@pytest.mark.parametrize("options", [{}, {"tuning": "none"}, {"tuning": 5}, {"tuning": ["lora"]}])
def test_options_without_a_known_tuning_are_refused(lora, options):
    file = lora / "flaretune.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "options": options}))
    with pytest.raises(UserError, match="damaged or written by another version of flaretune: its tuning is"):
        load_adapter(lora)


def mutate(raw: bytes, rng: np.random.Generator) -> bytes:
    """Damage as disks and transfers do it."""
    kind, place = rng.integers(4), int(rng.integers(len(raw)))
    changed = bytearray(raw)
    if kind == 0:  # one bit
        changed[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:  # cut off
        del changed[place:]
    elif kind == 2:  # a hole of zeros
        length = min(int(rng.integers(1, 64)), len(raw) - place)
        changed[place : place + length] = bytes(length)
    else:  # something added
        changed[place:place] = rng.bytes(int(rng.integers(1, 8)))
    return bytes(changed)


def test_damage_of_any_kind_is_noticed(lora):
    rng, refused = np.random.default_rng(2014), 0
    for file in sorted(lora.iterdir()):
        raw = file.read_bytes()
        for _ in range(150):
            file.write_bytes(mutate(raw, rng))
            try:
                loaded = load_adapter(lora)
            except UserError:
                refused += 1
            else:
                assert same(loaded, an_artifact())
        file.write_bytes(raw)
    assert refused > 380  # what leaves JSON as it means is more than of one binary file, and still rare
